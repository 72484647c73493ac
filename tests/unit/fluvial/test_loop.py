"""Plain asyncio in workflows: repeatable, durable, on the log's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.durations import to_seconds
from fluvial.encryption import AppKeys
from fluvial.errors import WorkflowSandboxError
from fluvial.events import EventType
from fluvial.journal import Journal
from fluvial.loop import DurableTimer, new_loop
from fluvial.registry import registry
from fluvial.scope import RunScope
from fluvial.sleeping import sleep
from fluvial.steps import step
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, RUN

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

START_SECONDS = 1_700_000_000.0


@step
async def double(number: int) -> int:
    return 2 * number


@step
async def slow(number: int) -> int:
    return number


@step(retries=0)
async def broken() -> None:
    raise ValueError("boom")


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in (double, slow, broken):
        registry.add_step(each)


def test_sequential_steps(play: Play) -> None:
    @workflow
    async def main(count: int) -> int:
        total = 1
        for _ in range(count):
            total = await double(total)
        return total

    outcome = play(main, 10)

    assert outcome.result == 1024
    assert outcome.count(EventType.STEP_SCHEDULED) == 10


def test_gather_schedules_in_the_order_of_asking(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        return list(await asyncio.gather(*(double(n) for n in range(20))))

    outcome = play(main)

    assert outcome.result == [2 * n for n in range(20)]
    assert outcome.types[1:21] == ["STEP_SCHEDULED"] * 20
    assert [event.id for event in outcome.events[1:21]] == list(range(1, 21))


def test_task_group_and_results_out_of_order(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            late = group.create_task(slow(1))
            early = group.create_task(double(2))
        return [late.result(), early.result()]

    outcome = play(main, durations={"slow": 500})

    assert outcome.result == [1, 4]


def test_sleeping_moves_the_clock(play: Play) -> None:
    @workflow
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(3600)
        await sleep("1h 30m")
        return [begin, loop.time()]

    outcome = play(main)

    assert outcome.result == [START_SECONDS, START_SECONDS + 3600 + to_seconds("90m")]
    assert [e.meta["delay_ms"] for e in outcome.events if e.type is EventType.TIMER_SET] == [
        3_600_000,
        5_400_000,
    ]


def test_the_clock_never_goes_back(keys: AppKeys) -> None:
    """An event may be older than the timer that fired before it: owners' clocks differ."""
    loop = new_loop(Journal(keys.for_run(RUN)), RunScope(RUN, APP, "main", bytes))

    loop.advance(START_SECONDS + 5)
    loop.advance(START_SECONDS)

    assert loop.time() == START_SECONDS + 5


@pytest.mark.parametrize(("early", "seconds"), [(False, 5), (True, 0)])
def test_when_a_timer_has_fired_the_clock_is_at_its_time(
    keys: AppKeys, early: bool, seconds: int
) -> None:
    loop = new_loop(Journal(keys.for_run(RUN)), RunScope(RUN, APP, "main", bytes))
    loop.advance(START_SECONDS)
    timer = loop.call_at(START_SECONDS + 5, int)
    assert isinstance(timer, DurableTimer)
    assert timer.operation is not None

    loop.fire(timer.operation, early=early)  # though the event may say that it is earlier

    assert loop.time() == START_SECONDS + seconds


def test_a_timer_that_is_not_needed_makes_no_operation(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return "done"

    assert play(main).types == ["RUN_STARTED", "RUN_COMPLETED"]


def test_timeout_cancels_the_step_and_ignores_its_late_result(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            async with asyncio.timeout(0.05):
                await slow(1)
        except TimeoutError:
            await asyncio.sleep(1)
            return "late"
        return "in time"

    outcome = play(main, durations={"slow": 500})

    assert outcome.result == "late"
    assert outcome.types == [
        "RUN_STARTED",
        "TIMER_SET",
        "STEP_SCHEDULED",
        "TIMER_FIRED",
        "STEP_CANCELLED",
        "TIMER_SET",
        "TIMER_FIRED",
        "RUN_COMPLETED",
    ]


def test_timeout_that_is_met_cancels_its_timer(play: Play) -> None:
    @workflow
    async def main() -> int:
        async with asyncio.timeout(60):
            return await double(4)

    assert play(main).types == [
        "RUN_STARTED",
        "TIMER_SET",
        "STEP_SCHEDULED",
        "STEP_COMPLETED",
        "TIMER_CANCELLED",
        "RUN_COMPLETED",
    ]


def test_wait_for(play: Play) -> None:
    @workflow
    async def main() -> list[object]:
        first = await asyncio.wait_for(double(1), 5)
        try:
            await asyncio.wait_for(slow(1), 0.001)
        except TimeoutError:
            return [first, "timeout"]
        return [first]

    assert play(main, durations={"slow": 500}).result == [2, "timeout"]


def test_wait_first_completed_sees_one_input_at_a_time(play: Play) -> None:
    @workflow
    async def main() -> int:
        tasks = [asyncio.create_task(double(n)) for n in range(3)]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        return len(done)

    outcome = play(main, batch=True)

    assert outcome.result == 1


def test_as_completed_yields_in_the_order_of_the_log(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        return [await each for each in asyncio.as_completed([slow(1), double(2)])]

    assert play(main, durations={"slow": 90}).result == [4, 1]


def test_shield_keeps_the_step_running(play: Play) -> None:
    @workflow
    async def main() -> int:
        task = asyncio.ensure_future(slow(7))
        try:
            async with asyncio.timeout(0.01):
                await asyncio.shield(task)
        except TimeoutError:
            return 10 * await task
        return 0

    outcome = play(main, durations={"slow": 100})

    assert outcome.result == 70
    assert outcome.count(EventType.STEP_CANCELLED) == 0


def test_event_lock_queue_and_semaphore(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        ready, lock, room = asyncio.Event(), asyncio.Lock(), asyncio.Semaphore(2)

        async def produce(number: int) -> None:
            await ready.wait()
            async with room, lock:
                await queue.put(await double(number))

        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(produce(number))
            ready.set()
            return [await queue.get() for _ in range(4)]

    assert play(main).result == [0, 2, 4, 6]


def test_an_error_in_a_task_group_cancels_its_siblings(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow(1))
                group.create_task(broken())
        except ExceptionGroup as error:
            return str(len(error.exceptions))
        return "no error"

    outcome = play(main, durations={"slow": 500})

    assert outcome.result == "1"
    assert outcome.count(EventType.STEP_CANCELLED) == 1


def test_a_step_given_up_before_it_was_scheduled_never_existed(play: Play) -> None:
    @workflow
    async def main() -> int:
        task = asyncio.create_task(slow(1))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await double(1)

    outcome = play(main)

    assert [e.meta["name"] for e in outcome.events if e.type is EventType.STEP_SCHEDULED] == [
        "double"
    ]


def test_async_generators(play: Play) -> None:
    async def numbers() -> AsyncIterator[int]:
        for number in range(10):
            yield await double(number)

    @workflow
    async def main() -> list[int]:
        seen: list[int] = []
        async for number in numbers():
            seen.append(number)
            if number == 4:
                break
        return seen

    assert play(main).result == [0, 2, 4]


Attempt = Callable[[asyncio.AbstractEventLoop], Any]
FORBIDDEN: list[tuple[str, Attempt]] = [
    ("create_connection", lambda loop: loop.create_connection(asyncio.Protocol, "h", 1)),
    ("run_in_executor", lambda loop: loop.run_in_executor(None, print)),
    ("add_signal_handler", lambda loop: loop.add_signal_handler(1, print)),
    ("subprocess_exec", lambda loop: loop.subprocess_exec(asyncio.SubprocessProtocol, "ls")),
    ("call_soon_threadsafe", lambda loop: loop.call_soon_threadsafe(print)),
]


@pytest.mark.parametrize(("name", "attempt"), FORBIDDEN)
def test_what_cannot_be_repeated_names_the_line(play: Play, name: str, attempt: Attempt) -> None:
    @workflow
    async def main() -> None:
        await attempt(asyncio.get_running_loop())

    outcome = play(main)

    assert isinstance(outcome.error, WorkflowSandboxError)
    assert f"loop.{name}" in str(outcome.error)
    assert f"{__file__}:" in str(outcome.error)
    assert "move this into a step" in str(outcome.error)


def test_to_thread_is_refused(play: Play) -> None:
    @workflow
    async def main() -> None:
        await asyncio.to_thread(print)

    assert isinstance(play(main).error, WorkflowSandboxError)


def test_a_workflow_that_never_waits_is_stopped(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial.loop.MAX_CALLBACKS", 1000)

    @workflow
    async def main() -> None:
        while True:  # noqa: ASYNC110 - the mistake that is tested
            await asyncio.sleep(0)

    outcome = play(main)

    assert isinstance(outcome.error, WorkflowSandboxError)
    assert outcome.events[-1].meta["reason"] == "workflow_sandbox"


def test_the_outer_loop_and_task_are_put_back(play: Play) -> None:
    @workflow
    async def main() -> bool:
        return asyncio.current_task() is not None

    async def outside() -> bool:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        player = play.player()
        await player.play(main, (), [])
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        return loop is asyncio.get_running_loop() and task is asyncio.current_task()

    assert asyncio.run(outside())


def test_tasks_are_named_per_run(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            return "" if task is None else task.get_name()

        return list(await asyncio.gather(name(), name()))

    assert play(main).result == ["task-2", "task-3"]
