"""Runs a test's coroutine against a fresh control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fluvial_gateway.auth import Scope
from tests.integration.control.world import World, open_world

TEST_SECONDS = 20.0
Scenario = Callable[[World], Awaitable[None]]


@pytest.fixture
def control(tmp_path: Path) -> Callable[..., None]:
    """`control(scenario, *scopes)` runs it with a client that has these scopes (default: admin)."""

    def run(scenario: Scenario, *scopes: Scope) -> None:
        async def main() -> None:
            async with asyncio.timeout(TEST_SECONDS), open_world(tmp_path, *scopes) as world:
                await scenario(world)

        asyncio.run(main())

    return run
