"""Environments in every mode, and the functions that the tests run in them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fluvial.testing import Mode, SyncEnvironment
from fluvial_queue.kit import open_engine


@pytest.fixture(params=["live", "replay", "evict"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """How turns continue; what a test sees must not depend on it."""
    chosen: Mode = request.param
    return chosen


@pytest.fixture
def env(mode: Mode) -> Iterator[SyncEnvironment]:
    with SyncEnvironment(mode=mode, engine=open_engine) as environment:
        yield environment
