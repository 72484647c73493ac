"""Makes the scripted peers importable, and runs every test of this folder on both event loops."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from gateway_peers import LOOPS, loops_in_use


@pytest.fixture(params=LOOPS, autouse=True)
def _event_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """The gateway runs on uvloop; asyncio's own loop has other orders and buffers."""
    loops_in_use.append(LOOPS[request.param])
    yield
    loops_in_use.pop()
