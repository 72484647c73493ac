import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from fluvial_invoker.instance.metering import (
    Meter,
    Metered,
    current,
    start_metering,
)
from fluvial_invoker.instance.thread_metering import MeteredExecutor


def burn(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def run(body: Coroutine[Any, Any, None]) -> None:
    async def metered() -> None:
        start_metering(asyncio.get_running_loop())
        await body

    asyncio.run(metered())


async def billed(meter: Meter, body: Coroutine[Any, Any, None]) -> None:
    """Run `body` in a task of its own that belongs to `meter`."""

    async def enter() -> None:
        current.set(meter)
        await asyncio.create_task(body)

    await asyncio.create_task(enter())


def test_interleaved_tasks_are_told_apart() -> None:
    small, large = Meter("small"), Meter("large")

    async def work(seconds: float) -> None:
        for _ in range(10):
            burn(seconds / 10)
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(billed(small, work(0.02)), billed(large, work(0.06)))

    run(main())
    assert 20_000 <= small.cpu_us < 40_000
    assert 60_000 <= large.cpu_us < 80_000


def test_waiting_costs_nothing() -> None:
    meter = Meter("waiting")
    run(billed(meter, asyncio.sleep(0.05)))

    assert meter.cpu_us < 10_000


def test_threads_are_billed_by_their_own_clock() -> None:
    meter = Meter("thread")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with MeteredExecutor(4) as executor:
            await asyncio.gather(
                *(loop.run_in_executor(executor, burn, 0.01) for _ in range(4)),
            )

    run(billed(meter, main()))
    assert 40_000 <= meter.cpu_us < 60_000


def test_system_exit_in_a_task_is_an_error_of_that_task() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="SystemExit"):
            await asyncio.create_task(leave())

    run(main())


def test_task_cancelled_before_its_first_step_was_awaited() -> None:
    async def main() -> None:
        async def never() -> None:
            raise AssertionError

        task = asyncio.create_task(never())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())  # "never awaited" would be a warning, hence an error here


def test_wrapped_coroutine_still_looks_like_itself() -> None:
    async def named() -> None: ...

    async def main() -> None:
        task = asyncio.create_task(named(), name="mine")
        coroutine: Any = task.get_coro()
        assert isinstance(coroutine, Metered)
        assert coroutine.__qualname__.endswith("named")
        assert task.get_name() == "mine"
        await task

    run(main())
