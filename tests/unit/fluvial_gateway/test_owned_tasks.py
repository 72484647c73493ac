"""Tasks end with their owner."""

from __future__ import annotations

import asyncio

import pytest

from fluvial_gateway.owned_tasks import OwnedTasks


def test_close_cancels_and_awaits() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("work")

        tasks = OwnedTasks()
        tasks.start(work(), "work")
        await asyncio.sleep(0)
        await tasks.close()

        assert ended == ["work"]
        assert len(tasks) == 0

    asyncio.run(main())


def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async def work() -> None:
            raise ValueError("boom")

        tasks = OwnedTasks()
        task = tasks.start(work(), "work")
        await asyncio.wait([task])
        await tasks.close()

    asyncio.run(main())

    assert "a task failed" in caplog.text
    assert "boom" in caplog.text


def test_nothing_runs_after_close() -> None:
    async def main() -> None:
        ran: list[int] = []

        async def work() -> None:
            ran.append(1)

        tasks = OwnedTasks()
        await tasks.close()
        task = tasks.start(work(), "late")
        await asyncio.wait([task])

        assert task.cancelled()
        assert ran == []

    asyncio.run(main())
