"""`fluvial.map`: a window over many items, the same live and replayed, with failures tolerated."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fluvial
from fluvial import (
    FatalError,
    Hook,
    InvalidRequestError,
    MapFailedError,
    Step,
    sleep,
    step,
    workflow,
)
from fluvial.codec import decode, encode
from fluvial.errors import StepFailedError
from fluvial.events import INPUTS, EventType
from fluvial.invocations import TurnRequest
from fluvial.mapping import MAX_CONCURRENCY
from fluvial.registry import registry
from tests.unit.fluvial.conftest import APP, RUN

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play


class OddError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(f"{number} is odd")
        self.number = number


async def double(number: int) -> int:
    return 2 * number


async def halve(number: int) -> int:
    if number % 2:
        raise OddError(number)
    return number // 2


noted: list[bool] = []


async def note(what: bool) -> None:
    noted.append(what)


async def fail_later(number: int) -> None:
    await sleep("1s")
    raise OddError(number)


async def wait(milliseconds: int) -> int:
    await sleep(milliseconds / 1000)
    return milliseconds


def steps() -> tuple[Step[[int], int], Step[[int], int]]:
    return step(name="map.double")(double), step(name="map.halve", retries=0)(halve)


def test_results_stand_in_the_order_of_the_items(play: Play) -> None:
    @workflow
    async def main(waits: list[int]) -> list[int]:
        return await fluvial.map(wait, waits)

    assert play(main, [30, 10, 20]).result == [30, 10, 20]


def test_steps_are_asked_for_in_order_and_so_many_at_a_time(play: Play) -> None:
    doubled, _ = steps()

    @workflow
    async def main() -> list[int]:
        return await fluvial.map(doubled, range(10), concurrency=3)

    outcome = play(main, durations={"double": 5})
    under_way, most = 0, 0
    for event in outcome.events:
        under_way += event.type is EventType.STEP_SCHEDULED
        under_way -= event.type is EventType.STEP_COMPLETED
        most = max(most, under_way)

    assert outcome.result == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert most == 3


def test_the_window_is_refilled_as_each_item_finishes(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        return await fluvial.map(wait, [100, 10, 10, 10, 10, 10], concurrency=2)

    events = play(main).events

    assert events[-1].at_ms - events[0].at_ms == 100


@pytest.mark.parametrize("items", [[], {"a": 1}.keys(), (n for n in (1,)), {3}, "x"])
def test_any_iterable_does(play: Play, items: Any) -> None:
    async def same(item: Any) -> Any:
        return item

    wanted = list(items) if not hasattr(items, "__next__") else [1]

    @workflow
    async def main() -> list[Any]:
        return await fluvial.map(same, (n for n in (1,)) if wanted == [1] else items)

    assert play(main).result == wanted


def test_a_failure_cancels_the_rest_and_is_told(play: Play) -> None:
    _, halved = steps()

    @workflow
    async def main() -> list[Any]:
        done: list[str] = []

        async def call(number: int) -> int:
            if number == 3:
                return await halved(number)
            try:
                await sleep(number)
                done.append(f"slept {number}")
            except asyncio.CancelledError:
                await sleep("1s")  # clean-up that waits
                done.append(f"cancelled {number}")
                raise
            return number

        try:
            await fluvial.map(call, [0, 60, 3, 70, 0], concurrency=4)
        except MapFailedError as error:
            return [done, dict(error.results), error.failures, error.total, str(error)]
        return []

    done, results, failures, total, text = play(main, durations={"halve": 5}).result

    assert done == ["slept 0", "slept 0", "cancelled 60", "cancelled 70"]
    assert results == {0: 0, 4: 0}
    assert failures.keys() == {2}
    assert isinstance(failures[2], StepFailedError)
    assert isinstance(failures[2].__cause__, OddError)
    assert total == 5
    assert text.startswith("1 of 5 items failed, more than is tolerated; the first was item 2: S")


@pytest.mark.parametrize(
    ("tolerate", "failing"),
    [(0, 1), (1, 2), (3, 4), (0.25, 3), (0.29, 3), (0.3, 4), (0.999, 10)],
)
def test_a_number_or_a_share_of_failures_is_tolerated(
    play: Play, tolerate: float, failing: int
) -> None:
    """`failing` of ten is the first number that is too much."""

    async def call(is_bad: bool) -> str:
        await sleep("1s")
        if is_bad:
            raise OddError(1)
        return "fine"

    @workflow(name="tolerant")
    async def main(bad: int) -> list[str]:
        items = [n < bad for n in range(10)]
        results = await fluvial.map(call, items, concurrency=2, tolerate=tolerate)
        return [r if isinstance(r, str) else type(r).__name__ for r in results]

    fine = play(main, failing - 1)
    failed = play(main, failing)

    assert fine.result == ["OddError"] * (failing - 1) + ["fine"] * (11 - failing)
    assert isinstance(failed.error, MapFailedError)
    assert len(failed.error.exceptions) >= failing


def test_a_hundred_percent_of_a_share_is_exact(play: Play) -> None:
    """0.29 of 100 is 28.999999999999996 to a computer."""

    async def call(number: int) -> int:
        if number < 29:
            raise OddError(number)
        return number

    @workflow
    async def main() -> int:
        return len(await fluvial.map(call, range(100), tolerate=0.29))

    assert play(main).result == 100


def test_any_number_of_failures_may_be_wanted(play: Play) -> None:
    @workflow
    async def main() -> list[str]:
        results = await fluvial.map(halve, [1, 3], return_exceptions=True)
        return [str(result) for result in results]

    assert play(main).result == ["1 is odd", "3 is odd"]


def test_the_error_of_a_failed_run_holds_the_failures(play: Play) -> None:
    @workflow
    async def main() -> list[int]:
        return await fluvial.map(halve, [2, 1, 3], concurrency=1, tolerate=1)  # type: ignore[return-value] # pyright: ignore[reportReturnType] # it fails

    error = play(main).error

    assert isinstance(error, MapFailedError)
    assert [getattr(e, "number", 0) for e in error.failures.values()] == [1, 3]
    assert list(error.failures) == [1, 2]
    assert error.results == {}  # these stay where they are
    odd, rest = error.split(OddError)
    assert odd is not None
    assert rest is None


def test_async_iterables_are_asked_when_there_is_room(play: Play) -> None:
    @workflow
    async def main() -> list[Any]:
        log: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            for number in range(5):
                log.append(f"ask {number}")
                await sleep(0.001)
                yield number

        async def call(number: int) -> int:
            await sleep(0.01)
            log.append(f"done {number}")
            return number

        return [await fluvial.map(call, numbers(), concurrency=2), log]

    results, log = play(main).result

    assert results == [0, 1, 2, 3, 4]
    assert log[:4] == ["ask 0", "ask 1", "done 0", "ask 2"]


@pytest.mark.parametrize("pause", [0, 60])
def test_an_async_generator_is_closed_when_calls_fail(play: Play, pause: int) -> None:
    @workflow
    async def main() -> list[str]:
        log: list[str] = []

        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                await sleep(pause)
                yield 2
            finally:
                await sleep("1s")
                log.append("closed")

        try:
            await fluvial.map(fail_later, numbers(), concurrency=1 if pause == 0 else 5)
        except MapFailedError as error:
            log.append(str(error.total))
        return log

    assert play(main).result == ["closed", "1"]


def test_a_share_of_an_async_iterable_is_judged_at_its_end(play: Play) -> None:
    async def numbers(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield number

    @workflow(name="shares")
    async def main(most: int) -> int:
        results = await fluvial.map(halve, numbers(most), concurrency=1, tolerate=0.5)
        return len(results)

    assert play(main, 10).result == 10

    async def odd(most: int) -> AsyncIterator[int]:
        for number in range(most):
            yield 2 * number + 1

    @workflow(name="odd shares")
    async def bad(most: int) -> int:
        return len(await fluvial.map(halve, odd(most), tolerate=0.5))

    error = play(bad, 4).error
    assert isinstance(error, MapFailedError)
    assert error.total == 4


def test_what_the_iteration_raises_is_raised_when_the_calls_have_ended(play: Play) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        await sleep("1s")
        raise OddError(7)

    @workflow
    async def main() -> list[Any]:
        ended: list[int] = []

        async def call(number: int) -> None:
            try:
                await sleep("1h")
            finally:
                await sleep("1s")
                ended.append(number)

        try:
            await fluvial.map(call, numbers())
        except OddError as error:
            return [error.number, ended]
        return []

    assert play(main).result == [7, [1]]


def test_a_call_that_cancels_itself_is_a_failure(play: Play) -> None:
    async def call(number: int) -> int:
        if number == 1:
            raise asyncio.CancelledError
        return number

    @workflow
    async def main() -> list[str]:
        results = await fluvial.map(call, range(3), tolerate=1)
        return [str(result) for result in results]

    assert play(main).result == ["0", "the call for item 1 was cancelled by its own code", "2"]


@pytest.mark.parametrize("at_ms", [1, 4, 5, 6, 9, 10, 11, 14, 15, 16, 22])
def test_a_cancel_at_any_moment_reaches_every_call(play: Play, at_ms: int) -> None:
    doubled, _ = steps()
    log = step(name="map.note")(note)

    @workflow
    async def main() -> list[int]:
        begun: list[int] = []
        ended: list[int] = []

        async def call(number: int) -> int:
            begun.append(number)
            try:
                try:
                    return await doubled(number)
                finally:
                    await sleep(0.001)
            finally:
                ended.append(number)

        try:
            return await fluvial.map(call, range(6), concurrency=2)
        finally:
            await log(sorted(begun) == sorted(ended))

    noted.clear()
    outcome = play(main, actions=[play.cancel(at_ms)], durations={"double": 5})

    assert outcome.types[-1] == ("RUN_CANCELLED" if at_ms < 20 else "RUN_COMPLETED")
    assert noted == [True] * len(play.modes)


def test_a_cancel_while_the_calls_are_being_stopped_is_not_lost(play: Play) -> None:
    async def call(number: int) -> None:
        if number == 0:
            raise OddError(0)
        try:
            await sleep("1h")
        finally:
            await sleep("1s")

    @workflow
    async def main() -> str:
        try:
            await fluvial.map(call, range(2))
        except MapFailedError:
            return "failed"
        return "fine"

    assert play(main, actions=[play.cancel(500)]).types[-1] == "RUN_CANCELLED"
    assert play(main).result == "failed"


def test_a_cancel_while_the_iteration_is_being_stopped_is_not_lost(play: Play) -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        try:
            await sleep("1h")
            yield 2
        finally:
            await sleep("1s")

    @workflow
    async def main() -> str:
        try:
            await fluvial.map(halve, numbers())
        except MapFailedError:
            return "failed"
        return "fine"

    assert play(main, actions=[play.cancel(500)]).types[-1] == "RUN_CANCELLED"
    assert play(main).result == "failed"


def test_a_timeout_around_it_counts(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            async with asyncio.timeout(0.05):
                await fluvial.map(wait, [10] * 20, concurrency=2)
        except TimeoutError:
            return "too slow"
        return "done"

    assert play(main).result == "too slow"


def test_maps_nest_and_hooks_feed_them(play: Play) -> None:
    async def row(numbers: list[int]) -> list[int]:
        return await fluvial.map(wait, numbers, concurrency=1)

    async def payloads(hook: Hook[Any]) -> AsyncIterator[list[int]]:
        async for payload in hook:
            if payload is None:
                return
            yield payload

    @workflow
    async def main() -> list[list[int]]:
        async with Hook[Any](token="rows") as hook:
            return await fluvial.map(row, payloads(hook), concurrency=2)

    actions = [play.resume(5, [3, 1]), play.resume(6, [2]), play.resume(7, []), play.resume(20)]

    assert play(main, actions=actions).result == [[3, 1], [2], []]


def test_each_item_may_be_a_child_run(play: Play) -> None:
    def doubled(number: int) -> int:
        return 2 * number

    @workflow(name="map.child")
    async def child(number: int) -> int:
        return doubled(number)

    @workflow
    async def main() -> list[int]:
        return await fluvial.map(functools.partial(fluvial.execute, child), range(5), concurrency=2)

    outcome = play(main, children={"map.child": doubled})

    assert outcome.result == [0, 2, 4, 6, 8]
    assert outcome.count(EventType.CHILD_SCHEDULED) == 5


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from(["ok", "ok", "bad"])), max_size=12),
    st.integers(1, 5),
    st.one_of(st.integers(0, 3), st.sampled_from([0.1, 0.5])),
    st.one_of(st.none(), st.integers(1, 60)),
    st.booleans(),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_maps_are_the_same_in_all_modes_and_keep_their_promises(
    play: Play,
    items: list[tuple[int, str]],
    concurrency: int,
    tolerate: float,
    cancel_at: int | None,
    batch: bool,
) -> None:
    under_way = 0
    most = 0

    async def call(item: tuple[int, str]) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            await sleep(item[0] / 1000)
            if item[1] == "bad":
                raise OddError(item[0])
        finally:
            under_way -= 1
        return item[0]

    @workflow(name="random map")
    async def main() -> list[Any]:
        return [*await fluvial.map(call, items, concurrency=concurrency, tolerate=tolerate)]

    actions = [] if cancel_at is None else [play.cancel(cancel_at)]
    outcome = play(main, actions=actions, batch=batch)
    registry.workflows.pop("random map")

    bad = sum(kind == "bad" for _, kind in items)
    allowed = tolerate if type(tolerate) is int else tolerate * len(items) + 1e-9
    assert most <= concurrency
    assert under_way == 0
    if outcome.types[-1] == "RUN_COMPLETED":
        assert bad <= allowed
        kept = [r if isinstance(r, int) else "bad" for r in outcome.result]
        assert kept == [n if kind == "ok" else "bad" for n, kind in items]
    elif outcome.types[-1] == "RUN_FAILED":
        assert bad > allowed
    else:
        assert cancel_at is not None


@pytest.mark.parametrize(
    "arguments",
    [
        {"concurrency": 0},
        {"concurrency": MAX_CONCURRENCY + 1},
        {"concurrency": 1.5},
        {"concurrency": True},
        {"tolerate": -1},
        {"tolerate": 1.0},
        {"tolerate": 0.0},
        {"tolerate": float("nan")},
        {"tolerate": True},
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    call: Any = fluvial.map
    with pytest.raises(InvalidRequestError):
        asyncio.run(call(double, [1], **arguments))


def test_outside_of_a_workflow_it_is_plain_asyncio() -> None:
    @step
    def plain(number: int) -> int:
        return number + 1

    assert asyncio.run(fluvial.map(plain, [1, 2])) == [2, 3]
    with pytest.raises(MapFailedError):
        asyncio.run(fluvial.map(halve, [1]))


def test_its_types_are_those_of_the_function() -> None:
    doubled = steps()[0]

    async def check() -> None:
        assert_type(await fluvial.map(doubled, [1]), list[int])
        assert_type(
            await fluvial.map(double, [2], return_exceptions=True), list[int | BaseException]
        )
        assert_type(await fluvial.map(double, [2], tolerate=1), list[int | BaseException])
        assert_type(await fluvial.map(functools.partial(double), [2]), list[int])

    asyncio.run(check())


def test_the_error_crosses_boundaries_as_itself() -> None:
    error = MapFailedError({4: FatalError("a"), 1: ValueError("b")}, {0: "x"}, total=9)
    back = decode(encode(error))

    assert type(back) is MapFailedError
    assert str(back) == str(error)
    assert back.failures.keys() == {1, 4}
    assert type(back.failures[4]) is FatalError
    assert (back.results, back.total) == ({}, 9)
    assert error.results == {0: "x"}


def test_ten_thousand_items_take_turns_that_one_can_carry(play: Play) -> None:
    doubled, _ = steps()

    @workflow(name="many")
    async def main(count: int) -> int:
        results = await fluvial.map(doubled, range(count), concurrency=MAX_CONCURRENCY)
        return sum(results)

    player = play.player()
    player.batch = True
    asyncio.run(player.play(main, (10_000,), ()))
    live = player.outcome()
    inputs = sum(event.type in INPUTS for event in live.events)
    request = TurnRequest(
        run_id=RUN,
        app=APP,
        workflow=main.name,
        turn_id=None,
        consumed=inputs,
        now_ms=live.events[-1].at_ms,
        events=player.log,
    )

    assert live.result == 99_990_000
    assert live.count(EventType.STEP_COMPLETED) == 10_000
    assert play.player().live.turn(request).outcome == "ok"  # a replay of it all
