"""Every primitive of asyncio in a workflow: as on any loop, durable, the same in each replay."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

from fluvial import guards
from fluvial.errors import InvalidRequestError, StepFailedError, WorkflowSandboxError
from fluvial.events import EventType
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Outcome, Play

guards.install()
EAGER: Any = getattr(asyncio, "eager_task_factory", None)
FACTORIES = [None] if EAGER is None else [None, EAGER]
DURATIONS = {"fast": 10, "slow": 500, "broken": 20, "undo": 5}


@step(name="asyncio.fast")
async def fast(value: int) -> int:
    return value


@step(name="asyncio.slow")
async def slow(value: int) -> int:
    return value


@step(name="asyncio.broken", retries=0)
async def broken() -> None:
    raise ValueError("boom")


@step(name="asyncio.undo")
async def undo(what: str) -> str:
    return what


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in (fast, slow, broken, undo):
        registry.add_step(each)


@pytest.fixture(params=FACTORIES, ids=lambda factory: "lazy" if factory is None else "eager")
def run(play: Play, request: pytest.FixtureRequest) -> Callable[..., Outcome]:
    """Plays a function as a workflow; also with eager tasks where Python has them."""

    def run(function: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Outcome:
        @workflow(name="asyncio.main")
        async def main(*given: Any) -> Any:
            asyncio.get_running_loop().set_task_factory(request.param)
            return await function(*given)

        return play(main, *args, durations=DURATIONS, **options)

    return run


Run = Callable[..., "Outcome"]


def since_start(seconds: float) -> float:
    return round(asyncio.get_running_loop().time() - seconds, 3)


# gather


def test_gather_keeps_the_order_of_its_arguments(run: Run) -> None:
    async def main() -> tuple[Any, ...]:
        nested = asyncio.gather(fast(3), slow(4))
        return tuple(await asyncio.gather(slow(1), fast(2), nested, say(5)))

    async def say(value: int) -> int:
        return value

    assert run(main).result == (1, 2, [3, 4], 5)


def test_gather_raises_the_first_error_and_leaves_the_others_running(run: Run) -> None:
    async def main() -> list[Any]:
        slow_one = asyncio.ensure_future(slow(1))
        try:
            await asyncio.gather(slow_one, broken())
        except StepFailedError:
            return ["failed", slow_one.done(), await slow_one]
        return []

    outcome = run(main)

    assert outcome.result == ["failed", False, 1]
    assert outcome.count(EventType.STEP_CANCELLED) == 0


def test_gather_returns_exceptions_where_it_is_asked_to(run: Run) -> None:
    async def main() -> list[str]:
        lost = asyncio.ensure_future(slow(1))
        asyncio.get_running_loop().call_later(0.015, lost.cancel)
        results = await asyncio.gather(fast(1), broken(), lost, return_exceptions=True)
        return [type(result).__name__ for result in results]

    assert run(main).result == ["int", "StepFailedError", "CancelledError"]


def test_cancelling_a_gather_cancels_its_children(run: Run) -> None:
    async def main() -> list[Any]:
        everything = asyncio.gather(slow(1), slow(2))
        await fast(1)
        everything.cancel()
        try:
            await everything
        except asyncio.CancelledError:
            return ["cancelled", everything.done()]
        return []

    outcome = run(main)

    assert outcome.result == ["cancelled", True]
    assert outcome.count(EventType.STEP_CANCELLED) == 2


def test_gather_of_nothing(run: Run) -> None:
    async def main() -> list[Any]:
        nothing: list[Any] = await asyncio.gather()
        return nothing

    assert run(main).result == []


# TaskGroup and exception groups


def test_a_task_group_waits_for_all(run: Run) -> None:
    async def main() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call(n)) for n, call in enumerate((slow, fast, slow))]
            tasks.append(group.create_task(fast(3)))
        return [task.result() for task in tasks]

    assert run(main).result == [0, 1, 2, 3]


def test_a_task_group_that_fails_cancels_the_rest_in_the_order_of_making(run: Run) -> None:
    async def main() -> list[Any]:
        order: list[int] = []

        async def work(number: int) -> None:
            try:
                await slow(number)
            finally:
                order.append(number)

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(40):
                    group.create_task(work(number))
                group.create_task(broken())
        except* StepFailedError as failed:
            order.append(-len(failed.exceptions))
        return order

    outcome = run(main)

    assert sorted(outcome.result) == list(range(-1, 40))
    assert outcome.count(EventType.STEP_CANCELLED) == 40


def test_nested_groups_and_except_star(run: Run) -> None:
    async def main() -> list[str]:
        seen: list[str] = []

        async def fail(error: Exception) -> None:
            await fast(1)
            raise error

        async def inner() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail(KeyError("k")))
                group.create_task(fail(IndexError("i")))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(inner())
                group.create_task(slow(1))
        except* KeyError:
            seen.append("key")
        except* IndexError:
            seen.append("index")
        return seen

    outcome = run(main)

    # The second step's result comes after the first one's error, which cancelled it.
    assert outcome.result == ["key"]


def test_an_error_in_the_body_of_a_group(run: Run) -> None:
    async def main() -> list[Any]:
        tasks: list[asyncio.Task[int]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks.append(group.create_task(slow(1)))
                await fast(1)
                raise ZeroDivisionError
        except* ZeroDivisionError:
            pass
        return [task.cancelled() for task in tasks]

    assert run(main).result == [True]


def test_a_group_that_is_cancelled_cancels_its_tasks(run: Run) -> None:
    async def main() -> list[Any]:
        async def grouped() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow(1))
                group.create_task(slow(2))

        task = asyncio.ensure_future(grouped())
        await fast(1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return [task.cancelled()]

    outcome = run(main)

    assert outcome.result == [True]
    assert outcome.count(EventType.STEP_CANCELLED) == 2


# wait and as_completed


def test_wait_for_the_first_completed(run: Run) -> None:
    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(call) for call in (slow(1), fast(2), slow(3))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return [[task.result() for task in done], len(pending), [await t for t in tasks]]

    assert run(main).result == [[2], 2, [1, 2, 3]]


def test_wait_for_the_first_exception(run: Run) -> None:
    async def main() -> list[Any]:
        tasks = [asyncio.ensure_future(call) for call in (slow(1), broken(), fast(3))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        assert done == set(tasks[1:])
        failed = [task for task in done if task.exception() is not None]
        return [len(failed), len(pending), await tasks[0]]

    assert run(main).result == [1, 1, 1]


def test_wait_with_a_timeout_cancels_nothing(run: Run) -> None:
    async def main() -> list[Any]:
        begin = asyncio.get_running_loop().time()
        tasks = [asyncio.ensure_future(call) for call in (slow(1), fast(2))]
        done, pending = await asyncio.wait(tasks, timeout=0.1)
        at = since_start(begin)
        return [len(done), len(pending), at, await asyncio.wait_for(tasks[0], 5)]

    assert run(main).result == [1, 1, 0.1, 1]


def test_sets_of_tasks_and_gathers_come_in_the_same_order_each_time(run: Run) -> None:
    async def main() -> list[Any]:
        waiting: set[asyncio.Future[Any]] = set()
        for number in range(20):
            waiting.add(asyncio.ensure_future(fast(number)))
            waiting.add(asyncio.gather(fast(100 + number), fast(200 + number)))
            waiting.add(asyncio.shield(asyncio.ensure_future(fast(300 + number))))
        done, _ = await asyncio.wait(waiting)
        # A set: the steps are asked for in its order, which the log records.
        return [await undo(str(future.result())) for future in done]

    assert len(run(main).result) == 60


def test_as_completed_comes_in_the_order_of_the_log(run: Run) -> None:
    async def main() -> list[int]:
        calls = [slow(1), *(fast(n) for n in range(2, 30))]
        return [await each for each in asyncio.as_completed(calls)]

    assert run(main).result == [*range(2, 30), 1]


def test_as_completed_with_a_timeout(run: Run) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []
        try:
            for each in asyncio.as_completed([slow(1), fast(2)], timeout=0.1):
                value = await each
                seen.append(value)
        except TimeoutError:
            seen.append("timeout")
        return seen

    assert run(main).result == [2, "timeout"]


# Timeouts


def test_a_timeout_that_passes_cancels_what_it_holds(run: Run) -> None:
    async def main() -> list[Any]:
        begin = asyncio.get_running_loop().time()
        limit = asyncio.timeout(0.05)
        try:
            async with limit:
                await slow(1)
        except TimeoutError:
            return [limit.expired(), since_start(begin)]
        return []

    outcome = run(main)

    assert outcome.result == [True, 0.05]
    assert outcome.count(EventType.STEP_CANCELLED) == 1


def test_timeouts_nest_and_the_outer_one_may_come_first(run: Run) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        try:
            async with asyncio.timeout(0.05):
                try:
                    async with asyncio.timeout(0.1):
                        await slow(1)
                except TimeoutError:
                    seen.append("inner")
        except TimeoutError:
            seen.append("outer")
        return seen

    assert run(main).result == ["outer"]


def test_timeout_at_and_reschedule(run: Run) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with asyncio.timeout_at(begin + 0.02) as limit:
            limit.reschedule(begin + 1)
            first = await slow(1)
            limit.reschedule(None)
        try:
            async with asyncio.timeout_at(begin + 0.6):
                await slow(2)
        except TimeoutError:
            return [first, since_start(begin)]
        return []

    assert run(main).result == [1, 0.6]


@pytest.mark.parametrize("limit", [None, math.inf])
def test_no_timeout_sets_no_timer(run: Run, limit: float | None) -> None:
    async def main() -> int:
        async with asyncio.timeout(limit):
            return await asyncio.wait_for(fast(1), limit)

    outcome = run(main)

    assert outcome.result == 1
    assert outcome.count(EventType.TIMER_SET) == 0


def test_a_timeout_in_the_past_passes_at_once(run: Run) -> None:
    async def main() -> str:
        try:
            async with asyncio.timeout(-1):
                await fast(1)
        except TimeoutError:
            return "timeout"
        return "in time"

    outcome = run(main)

    assert outcome.result == "timeout"
    assert outcome.count(EventType.STEP_SCHEDULED) == 0


def test_sleeping_for_ever_ends_with_a_cancellation(run: Run) -> None:
    async def main() -> str:
        sleeper = asyncio.ensure_future(asyncio.sleep(math.inf))
        await fast(1)
        sleeper.cancel()
        await asyncio.wait([sleeper])
        return "cancelled" if sleeper.cancelled() else "woken"

    assert run(main).result == "cancelled"


def test_a_delay_that_is_no_number_is_refused(run: Run) -> None:
    async def main() -> None:
        await asyncio.sleep(math.nan)

    assert isinstance(run(main).error, (InvalidRequestError, ValueError))


def test_wait_for_gives_the_result_or_cancels(run: Run) -> None:
    async def main() -> list[Any]:
        late = asyncio.ensure_future(slow(1))
        try:
            await asyncio.wait_for(late, 0.1)
        except TimeoutError:
            return [await asyncio.wait_for(fast(2), 0.1), late.cancelled()]
        return []

    assert run(main).result == [2, True]


# shield and cancellation


def test_shield_keeps_its_task_when_the_waiter_is_cancelled(run: Run) -> None:
    async def main() -> list[Any]:
        inner = asyncio.ensure_future(slow(1))

        async def wait() -> int:
            return await asyncio.shield(inner)

        waiter = asyncio.ensure_future(wait())
        await fast(1)
        waiter.cancel()
        await asyncio.wait([waiter])
        return [waiter.cancelled(), await inner]

    outcome = run(main)

    assert outcome.result == [True, 1]
    assert outcome.count(EventType.STEP_CANCELLED) == 0


def test_finally_blocks_run_durable_steps(run: Run, play: Play) -> None:
    async def main() -> str:
        try:
            return str(await slow(1))
        finally:
            await undo("first")
            await asyncio.sleep(1)
            await undo("second")

    outcome = run(main, actions=[play.cancel(100)])

    assert outcome.types[-1] == "RUN_CANCELLED"
    names = [e.meta["name"] for e in outcome.events if e.type is EventType.STEP_SCHEDULED]
    assert names == ["asyncio.slow", "asyncio.undo", "asyncio.undo"]


def test_a_cancellation_may_be_survived(run: Run, play: Play) -> None:
    async def main() -> list[Any]:
        task = asyncio.current_task()
        assert task is not None
        try:
            await slow(1)
        except asyncio.CancelledError:
            pending = task.cancelling()
            task.uncancel()
            return [pending, task.cancelling(), await fast(2)]
        return []

    outcome = run(main, actions=[play.cancel(100)])

    assert outcome.result == [1, 0, 2]
    assert outcome.types[-1] == "RUN_COMPLETED"


def test_a_second_cancellation_interrupts_the_clean_up(run: Run, play: Play) -> None:
    async def main() -> str:
        try:
            await slow(1)
        finally:
            try:
                await slow(2)
            finally:
                await undo("last")
        return "not reached"

    outcome = run(main, actions=[play.cancel(100), play.cancel(200)])

    assert outcome.types[-1] == "RUN_CANCELLED"
    assert outcome.count(EventType.STEP_CANCELLED) == 2
    assert outcome.count(EventType.STEP_COMPLETED) == 1


def test_a_cancellation_reaches_the_innermost_task(run: Run, play: Play) -> None:
    async def main() -> None:
        async def inner() -> None:
            try:
                await slow(1)
            finally:
                await undo("inner")

        async def outer() -> None:
            try:
                await asyncio.ensure_future(inner())
            finally:
                await undo("outer")

        await asyncio.ensure_future(outer())

    outcome = run(main, actions=[play.cancel(100)])

    assert outcome.types[-1] == "RUN_CANCELLED"
    assert outcome.count(EventType.STEP_COMPLETED) == 2


def test_a_message_of_a_cancellation_arrives(run: Run) -> None:
    async def main() -> list[Any]:
        task = asyncio.ensure_future(slow(1))
        await fast(1)
        task.cancel("enough")
        try:
            await task
        except asyncio.CancelledError as error:
            return list(error.args)
        return []

    assert run(main).result == ["enough"]


# Events, queues, locks


def test_event(run: Run) -> None:
    async def main() -> list[Any]:
        event = asyncio.Event()

        async def waiter(number: int) -> int:
            await event.wait()
            return number

        tasks = [asyncio.ensure_future(waiter(n)) for n in range(3)]
        await fast(1)
        was_set = event.is_set()
        event.set()
        return [was_set, await asyncio.gather(*tasks)]

    assert run(main).result == [False, [0, 1, 2]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (asyncio.Queue, [3, 1, 2]),
        (asyncio.PriorityQueue, [1, 2, 3]),
        (asyncio.LifoQueue, [2, 1, 3]),
    ],
)
def test_queues(run: Run, kind: type[asyncio.Queue[int]], expected: list[int]) -> None:
    async def main() -> list[int]:
        queue = kind(3)
        for number in (3, 1, 2):
            await queue.put(await fast(number))
        with contextlib.suppress(asyncio.QueueFull):
            queue.put_nowait(4)
        found = [queue.get_nowait() for _ in range(3)]
        for _ in found:
            queue.task_done()
        await queue.join()
        return found

    assert run(main).result == expected


def test_a_queue_between_tasks(run: Run) -> None:
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        done: list[int] = []

        async def produce() -> None:
            for number in range(5):
                await queue.put(await fast(number))

        async def consume(factor: int) -> None:
            while True:
                number = await queue.get()
                done.append(await slow(number * factor))
                queue.task_done()

        consumers = [asyncio.ensure_future(consume(factor)) for factor in (1, 10)]
        await produce()
        await queue.join()
        for consumer in consumers:
            consumer.cancel()
        await asyncio.gather(*consumers, return_exceptions=True)
        return done

    assert run(main).result == [0, 10, 2, 30, 4]


def test_lock_is_fair(run: Run) -> None:
    async def main() -> list[Any]:
        lock, order = asyncio.Lock(), list[int]()

        async def work(number: int) -> None:
            async with lock:
                order.append(await fast(number))

        await asyncio.gather(*map(work, range(5)))
        return [order, lock.locked()]

    assert run(main).result == [[0, 1, 2, 3, 4], False]


@pytest.mark.parametrize("kind", [asyncio.Semaphore, asyncio.BoundedSemaphore])
def test_semaphores_bound_what_runs_at_once(run: Run, kind: type[asyncio.Semaphore]) -> None:
    async def main() -> list[Any]:
        room, at_once, most = kind(3), 0, 0

        async def work(number: int) -> int:
            nonlocal at_once, most
            async with room:
                at_once += 1
                most = max(most, at_once)
                result = await fast(number)
                at_once -= 1
                return result

        return [await asyncio.gather(*map(work, range(10))), most]

    assert run(main).result == [list(range(10)), 3]


def test_a_bounded_semaphore_is_released_once(run: Run) -> None:
    async def main() -> str:
        try:
            asyncio.BoundedSemaphore(1).release()
        except ValueError:
            return "refused"
        return "released"

    assert run(main).result == "refused"


def test_condition(run: Run) -> None:
    async def main() -> list[int]:
        condition, stock, got = asyncio.Condition(), list[int](), list[int]()

        async def take() -> None:
            async with condition:
                await condition.wait_for(lambda: stock)
                got.append(stock.pop())

        takers = [asyncio.ensure_future(take()) for _ in range(3)]
        for number in range(3):
            value = await fast(number)
            async with condition:
                stock.append(value)
                condition.notify()
        await asyncio.gather(*takers)
        return got

    assert run(main).result == [0, 1, 2]


def test_barrier(run: Run) -> None:
    async def main() -> list[Any]:
        barrier, arrived = asyncio.Barrier(3), list[str]()

        async def party(number: int) -> int:
            arrived.append(f"{await fast(number)} waits")
            place = await barrier.wait()
            arrived.append(f"{number} goes on")
            return place

        places = await asyncio.gather(*map(party, range(3)))
        return [sorted(places), arrived[:3]]

    assert run(main).result == [[0, 1, 2], ["0 waits", "1 waits", "2 waits"]]


def test_a_lock_is_free_again_after_its_holder_was_cancelled(run: Run) -> None:
    async def main() -> list[Any]:
        lock = asyncio.Lock()

        async def hold() -> None:
            async with lock:
                await slow(1)

        holder, waiter = asyncio.ensure_future(hold()), asyncio.ensure_future(lock.acquire())
        await fast(1)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        return [await waiter, lock.locked()]

    assert run(main).result == [True, True]


# Generators and contexts


def test_async_generators_and_their_clean_up(run: Run) -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            for number in range(10):
                yield await fast(number)
        finally:
            await undo("generator")

    async def main() -> list[int]:
        seen: list[int] = []
        async with contextlib.aclosing(numbers()) as stream:
            async for number in stream:
                seen.append(number)
                if number == 2:
                    break
        return seen

    outcome = run(main)

    assert outcome.result == [0, 1, 2]
    assert outcome.events[-2].type is EventType.STEP_COMPLETED


def test_a_dropped_generator_asks_for_nothing(run: Run) -> None:
    async def numbers() -> AsyncIterator[int]:
        try:
            yield await fast(1)
            yield await fast(2)
        finally:
            cleaned.append("yes")
            await undo("generator")

    cleaned: list[str] = []

    async def main() -> int:
        async for number in numbers():
            return await slow(number)
        return 0

    outcome = run(main)

    assert outcome.result == 1
    assert cleaned
    assert outcome.count(EventType.STEP_SCHEDULED) == 2


def test_exit_stacks_unwind_in_reverse(run: Run) -> None:
    @contextlib.asynccontextmanager
    async def booked(name: str) -> AsyncGenerator[int, None]:
        try:
            yield await fast(1)
        finally:
            await undo(name)

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for name in ("flight", "hotel"):
                await stack.enter_async_context(booked(name))
                stack.push_async_callback(undo, f"note of {name}")
            await broken()

    outcome = run(main)

    assert isinstance(outcome.error, StepFailedError)
    names = [e.meta["name"] for e in outcome.events if e.type is EventType.STEP_SCHEDULED]
    assert names == ["asyncio.fast"] * 2 + ["asyncio.broken"] + ["asyncio.undo"] * 4


def test_context_variables_belong_to_their_tasks(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    async def main() -> list[int]:
        async def work(number: int) -> int:
            variable.set(number)
            await fast(number)
            return variable.get()

        variable.set(7)
        results = await asyncio.gather(*(work(n) for n in range(3)))
        return [*results, variable.get()]

    assert run(main).result == [0, 1, 2, 7]


# Tasks, futures, callbacks


def test_a_task_that_is_dropped_goes_on(run: Run) -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def work() -> None:
            seen.append(await fast(1))

        asyncio.get_running_loop().create_task(work())
        await slow(2)
        return seen

    assert run(main).result == [1]


def test_what_is_unfinished_when_the_workflow_returns_is_dropped(run: Run) -> None:
    async def main() -> str:
        async def work() -> None:
            try:
                await slow(1)
            finally:
                await undo("never")

        task = asyncio.ensure_future(work())
        await fast(1)
        return "done" if not task.done() else "odd"

    outcome = run(main)

    assert outcome.result == "done"
    assert outcome.count(EventType.STEP_SCHEDULED) == 2
    assert outcome.types[-1] == "RUN_COMPLETED"


def test_a_discarded_run_unwinds_through_generators_groups_and_waits(run: Run) -> None:
    unwound: list[str] = []

    async def inner() -> AsyncGenerator[int, None]:
        try:
            yield await fast(1)
            yield await slow(2)
        finally:
            unwound.append("inner")
            await asyncio.sleep(0)

    async def outer() -> AsyncGenerator[int, None]:
        try:
            async with contextlib.aclosing(inner()) as numbers:
                async for number in numbers:
                    yield number
        finally:
            unwound.append("outer")

    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        seen: list[int] = []
        try:
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(slow(1))
                async with contextlib.aclosing(outer()) as numbers:
                    async for number in numbers:
                        seen += [number]
        finally:
            unwound.append("main")
            if len(seen) < 2:
                await queue.get()  # nobody will put anything
        return seen

    assert run(main).result == [1, 2]
    assert unwound == ["inner", "outer", "main"] * (len(unwound) // 3)
    assert len(unwound) > 3 * 3  # in the replaying mode each turn discards the last one's


def test_a_run_that_is_discarded_in_a_task_group_unwinds(run: Run) -> None:
    unwound: list[str] = []

    async def main() -> int:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(slow(1))
                return await fast(1) + await slow(2)
        finally:
            unwound.append("main")

    assert run(main).result == 3
    assert len(unwound) > 3  # in the replaying mode each turn discards the last one's


def test_tasks_know_themselves_and_each_other(run: Run) -> None:
    async def main() -> list[Any]:
        me = asyncio.current_task()
        assert me is not None
        others = [asyncio.ensure_future(slow(n)) for n in range(50)]
        await fast(1)
        tasks = asyncio.all_tasks()
        assert tasks == {me, *others}
        for task in tasks - {me}:  # a set: in its order
            task.cancel()
            await undo(task.get_name())
        return [len(tasks), len(asyncio.all_tasks())]

    assert run(main).result == [51, 1]


def test_tasks_are_listed_alike_beside_other_runs(run: Run) -> None:
    async def main(kept: int, count: int) -> list[str]:
        tasks = [asyncio.ensure_future(slow(n) if n % kept == 0 else say()) for n in range(count)]
        await fast(1)
        names = [task.get_name() for task in asyncio.all_tasks()]
        beside.append(tasks)
        await slow(1)
        return names

    async def say() -> None: ...

    beside: list[Any] = []
    programs = [(32, 300), (8, 60), (64, 600)]  # numbers that fall together in a set
    alone = [run(main, *program).result for program in programs]

    assert [run(main, *program).result for program in programs] == alone


def test_callbacks_are_timers(run: Run) -> None:
    async def main() -> list[Any]:
        loop, seen = asyncio.get_running_loop(), list[Any]()
        begin = loop.time()
        loop.call_soon(seen.append, "soon")
        loop.call_later(0.2, lambda: seen.append(since_start(begin)))
        loop.call_at(begin + 0.1, lambda: seen.append(since_start(begin)))
        loop.call_later(0.15, seen.append, "cancelled").cancel()
        loop.call_soon(seen.append, "cancelled").cancel()
        await slow(1)
        return seen

    assert run(main).result == ["soon", 0.1, 0.2]


def test_futures_are_set_by_others(run: Run) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        result, error, gone = (loop.create_future() for _ in range(3))
        seen: list[Any] = []
        result.add_done_callback(lambda future: seen.append(future.result()))

        async def settle() -> None:
            result.set_result(await fast(1))
            error.set_exception(KeyError("k"))
            gone.cancel()

        settling = loop.create_task(settle())
        seen.append(await result)
        with contextlib.suppress(KeyError):
            await error
        with contextlib.suppress(asyncio.CancelledError):
            await gone
        await settling
        return [*seen, gone.cancelled()]

    assert run(main).result == [1, 1, True]


def test_an_error_in_a_callback_is_told_to_the_handler(run: Run) -> None:
    async def main() -> list[str]:
        loop, seen = asyncio.get_running_loop(), list[str]()

        def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            seen.append(type(context.get("exception")).__name__)

        def fail() -> None:
            raise LookupError

        assert loop.get_exception_handler() is None
        loop.set_exception_handler(note)
        assert loop.get_exception_handler() is note
        loop.call_soon(fail)
        await fast(1)
        return seen

    assert run(main).result == ["LookupError"]


def test_a_handler_that_fails_is_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        def fail(*_: object) -> None:
            raise LookupError

        loop = asyncio.get_running_loop()
        loop.call_soon(fail)
        await asyncio.sleep(0)
        loop.set_exception_handler(fail)
        loop.call_soon(fail)
        await fast(1)
        return "went on"

    with caplog.at_level(logging.ERROR, "fluvial.loop"):
        assert run(main).result == "went on"

    texts = {record.getMessage().split(" run ")[0] for record in caplog.records}
    assert texts == {"error in a callback in", "error in the exception handler of"}


def test_other_task_factories_are_refused(run: Run) -> None:
    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.Task)

    error = run(main).error

    assert isinstance(error, WorkflowSandboxError)
    assert "use asyncio.eager_task_factory or none" in str(error)


def test_debugging_has_no_effect(run: Run) -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        return loop.get_debug()

    assert run(main).result is False
