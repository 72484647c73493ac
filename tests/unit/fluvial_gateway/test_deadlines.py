"""Many deadlines, one timer."""

from __future__ import annotations

import asyncio

from fluvial_gateway.deadlines import NEVER, Deadlines


class Item:
    def __init__(self, deadline: float, deadlines: Deadlines) -> None:
        self.deadline = deadline
        self.expirations = 0
        self.seen = asyncio.Event()
        self._deadlines = deadlines
        deadlines.watch(self)

    def expired(self) -> None:
        self.expirations += 1
        self._deadlines.unwatch(self)
        self.seen.set()


def test_only_passed_deadlines_expire() -> None:
    async def main() -> None:
        now = 100.0
        deadlines = Deadlines(60.0, lambda: now)
        passed, coming, never = (Item(at, deadlines) for at in (100.0, 100.1, NEVER))
        deadlines.sweep()

        assert [item.expirations for item in (passed, coming, never)] == [1, 0, 0]
        assert len(deadlines) == 2
        deadlines.close()

    asyncio.run(main())


def test_moving_a_deadline_is_an_assignment() -> None:
    async def main() -> None:
        now = 100.0
        deadlines = Deadlines(60.0, lambda: now)
        item = Item(99.0, deadlines)
        item.deadline = 101.0
        deadlines.sweep()
        assert item.expirations == 0
        item.deadline = 100.0
        deadlines.sweep()

        assert item.expirations == 1
        deadlines.close()

    asyncio.run(main())


def test_the_timer_runs_while_there_are_items() -> None:
    async def main() -> None:
        deadlines = Deadlines(0.001)
        for _ in range(2):  # and starts again after it has stopped
            item = Item(0.0, deadlines)
            async with asyncio.timeout(5):
                await item.seen.wait()

        assert len(deadlines) == 0
        deadlines.close()

    asyncio.run(main())
