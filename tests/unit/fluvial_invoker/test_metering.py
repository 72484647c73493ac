import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from fluvial_invoker.instance.metering import (
    Meter,
    Metered,
    current,
    instance_meter,
    start_metering,
)
from fluvial_invoker.instance.thread_metering import MeteredExecutor, meter_threads


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


@pytest.fixture
def metered_threads() -> Iterator[None]:
    """Threads and pools that user code makes are metered for the time of a test."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    meter_threads()
    yield
    cast("Any", threading.Thread).start = start
    cast("Any", ThreadPoolExecutor).submit = submit


@pytest.mark.usefixtures("metered_threads")
def test_a_thread_works_for_the_invocation_that_started_it() -> None:
    meter, heard = Meter("starter"), list[Meter]()

    class Worker(threading.Thread):
        def run(self) -> None:
            burn(0.03)
            heard.append(current.get())

    async def work() -> None:
        threads = [Worker(), threading.Thread(target=burn, args=(0.02,))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run(billed(meter, work()))
    assert 50_000 <= meter.cpu_us < 80_000
    assert heard == [meter]


@pytest.mark.usefixtures("metered_threads")
def test_a_pool_works_for_whoever_submits_though_another_one_started_its_thread() -> None:
    first, second = Meter("first"), Meter("second")

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:

            async def work(seconds: float) -> Meter:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(pool, burn, seconds)
                return await loop.run_in_executor(pool, current.get)

            heard: list[Meter] = []

            async def note(seconds: float) -> None:
                heard.append(await work(seconds))

            await billed(first, note(0.01))
            await billed(second, note(0.04))
            await billed(first, note(0.01))
            assert heard == [first, second, first]

    run(main())
    assert 20_000 <= first.cpu_us < 40_000
    assert 40_000 <= second.cpu_us < 60_000


@pytest.mark.usefixtures("metered_threads")
def test_meters_add_up_to_the_time_of_the_process() -> None:
    meters = [Meter(str(number)) for number in range(5)]
    used_us = 0.0

    async def work() -> None:
        for _ in range(5):
            burn(0.002)
            await asyncio.sleep(0)
        await asyncio.to_thread(burn, 0.01)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(burn, [0.005] * 4))
        thread = threading.Thread(target=burn, args=(0.01,))
        thread.start()
        await asyncio.to_thread(thread.join)

    async def main() -> None:
        nonlocal used_us
        began, idle_us = time.process_time_ns(), instance_meter.cpu_us
        await asyncio.gather(*(billed(meter, work()) for meter in meters))
        await asyncio.sleep(0)
        used_us = (time.process_time_ns() - began) / 1000 - (instance_meter.cpu_us - idle_us)

    run(main())
    # What is left over is the beginning and end of threads, before and after their work.
    assert 0.85 < sum(meter.cpu_us for meter in meters) / used_us < 1.05
