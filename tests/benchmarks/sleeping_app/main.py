"""A WSGI app that sleeps in its thread: for H5."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

SECONDS = 0.5


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer after a while."""
    time.sleep(SECONDS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
