"""Runs every test of this folder on both event loops."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.gateway.gateway_peers import LOOPS, loops_in_use


@pytest.fixture(params=LOOPS, autouse=True)
def _event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """The gateway runs on uvloop; asyncio's own loop has other orders and buffers."""
    loops_in_use.append(LOOPS[request.param])
    yield
    loops_in_use.pop()
