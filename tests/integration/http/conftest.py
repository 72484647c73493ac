"""One invoker for each module of tests."""

from __future__ import annotations

from tests.integration.http.served import shared_machine

__all__ = ["shared_machine"]
