from __future__ import annotations

import asyncio

import pytest

from fluvial.errors import UnavailableError
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.waits import LongWaits


def test_wait_ends_at_its_own_deadline() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with LongWaits().admitted(0.01):
                await asyncio.Event().wait()

    asyncio.run(main())


def test_close_ends_every_wait_and_admits_no_other() -> None:
    async def main() -> None:
        waits, began = LongWaits(), asyncio.Event()

        async def wait() -> str:
            try:
                async with waits.admitted(60):
                    began.set()
                    await asyncio.Event().wait()
            except TimeoutError:
                return "ended"
            return "never"

        waiting = asyncio.create_task(wait())
        await began.wait()
        waits.close()

        assert await waiting == "ended"
        with pytest.raises(UnavailableError):
            waits.check()

    asyncio.run(main())


def test_number_of_waits_is_bounded_and_a_place_is_given_back() -> None:
    async def main() -> None:
        waits = LongWaits(limit=1)
        async with waits.admitted(1):
            with pytest.raises(ProblemError):
                waits.check()
        waits.check()

    asyncio.run(main())
