"""`fluvial.Saga`: what succeeded is undone, once and in reverse, whatever ends it and when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, assert_type

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial import (
    CompensationFailedError,
    FatalError,
    InvalidRequestError,
    Saga,
    Step,
    sleep,
    step,
    workflow,
)
from fluvial.codec import decode, encode
from fluvial.errors import RemoteError, StepFailedError
from fluvial.events import EventType
from fluvial.registry import registry

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Outcome, Play


class World:
    """What the steps have done outside; each mode of playing has its own."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.logs: list[list[str]] = []

    def begin(self) -> None:
        self.log = []
        self.logs.append(self.log)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def book(world: World) -> Step[[str], str]:
    @step(name="saga.book", retries=0)
    async def book(what: str) -> str:
        if what.startswith("bad"):
            raise FatalError(f"no {what}")
        world.log.append(f"book {what}")
        return f"{what}!"

    return book


@pytest.fixture
def cancel(world: World) -> Step[[str], None]:
    @step(name="saga.cancel", retries=0)
    async def cancel(booking: str) -> None:
        if booking.startswith("stuck"):
            raise FatalError(f"cannot cancel {booking}")
        world.log.append(f"cancel {booking}")

    return cancel


Book = Step[[str], str]
Cancel = Step[[str], None]


def played(play: Play, world: World, main: Any, *args: Any, **options: Any) -> Outcome:
    world.logs.clear()
    outcome = play(main, *args, before=world.begin, **options)
    assert world.logs == [world.logs[0]] * len(play.modes)
    return outcome


def test_nothing_is_undone_where_all_goes_well(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> list[str]:
        async with Saga() as saga:
            flight = await saga.do(book("flight"), undo=cancel)
            hotel = await saga.do(book("hotel"), undo=cancel)
        return [flight, hotel]

    assert played(play, world, main).result == ["flight!", "hotel!"]
    assert world.log == ["book flight", "book hotel"]


def test_what_succeeded_is_undone_in_reverse_order_and_the_error_goes_on(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> None:
        async with Saga() as saga:
            await saga.do(book("flight"), undo=cancel)
            saga.add(cancel, "lock")
            await saga.do(book("hotel"), undo=lambda hotel: cancel(f"{hotel}?"))
            await saga.do(book("bad car"), undo=cancel)

    error = played(play, world, main).error

    assert isinstance(error, StepFailedError)
    assert error.reason == "FatalError: no bad car"
    assert world.log == [
        "book flight",
        "book hotel",
        "cancel hotel!?",
        "cancel lock",
        "cancel flight!",
    ]


def test_compensations_run_one_after_the_other_or_as_many_as_wanted(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow(name="undoing")
    async def main(concurrency: int) -> None:
        async with Saga(concurrency=concurrency) as saga:
            for number in range(4):
                saga.add(cancel, str(number))
            raise FatalError("all")

    def most(outcome: Outcome) -> int:
        under_way = most = 0
        for event in outcome.events:
            under_way += event.type is EventType.STEP_SCHEDULED
            under_way -= event.type is EventType.STEP_COMPLETED
            most = max(most, under_way)
        return most

    assert most(played(play, world, main, 1)) == 1
    assert world.log == ["cancel 3", "cancel 2", "cancel 1", "cancel 0"]
    assert most(played(play, world, main, 3)) == 3


def test_a_compensation_that_fails_stops_none_of_the_others(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> None:
        async with Saga() as saga:
            for what in ("a", "stuck b", "c", "stuck d"):
                await saga.do(book(what), undo=cancel)
            raise ValueError("why")

    error = played(play, world, main).error

    assert isinstance(error, CompensationFailedError)
    assert str(error).startswith("2 compensation(s) failed after ValueError; the first: StepFailed")
    assert repr(error.original) == "ValueError('why')"
    assert [type(each) for each in error.exceptions] == [
        ValueError,
        StepFailedError,
        StepFailedError,
    ]
    assert error.failures == error.exceptions[1:]
    assert error.exceptions[0] is error.original
    assert "cannot cancel stuck d!" in str(error.failures[0])
    assert world.log[4:] == ["cancel c!", "cancel a!"]


@pytest.mark.parametrize("at_ms", range(1, 32))
@pytest.mark.parametrize("is_failing", [False, True])
def test_a_cancel_at_any_moment_leaves_nothing_half_done(
    play: Play, world: World, book: Book, cancel: Cancel, at_ms: int, is_failing: bool
) -> None:
    @workflow(name="trip")
    async def main(last: str) -> str:
        async with Saga() as saga:
            await saga.do(book("flight"), undo=cancel)
            await sleep(0.002)
            await asyncio.gather(
                saga.do(book("hotel"), undo=cancel), saga.do(book("car"), undo=cancel)
            )
            return await saga.do(book(last), undo=cancel)

    outcome = played(
        play,
        world,
        main,
        "bad meal" if is_failing else "meal",
        actions=[play.cancel(at_ms)],
        durations={"book": 5, "cancel": 3},
    )
    booked = [line.removeprefix("book ") for line in world.log if line.startswith("book")]
    undone = [line.removeprefix("cancel ")[:-1] for line in world.log if line.startswith("cancel")]

    if outcome.types[-1] == "RUN_COMPLETED":
        assert (at_ms, is_failing, undone) == (at_ms, False, [])
        assert at_ms >= 17
    else:
        assert undone == booked[::-1]
        assert outcome.types[-1] == "RUN_CANCELLED" or is_failing


def test_an_action_under_way_is_given_the_grace_to_finish(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow(name="graceful")
    async def main(grace: float) -> None:
        async with Saga(grace=grace) as saga:
            await saga.do(book("flight"), undo=cancel)
            await saga.do(book("hotel"), undo=cancel)

    options: dict[str, Any] = {"actions": [play.cancel(7_000)], "durations": {"book": 5_000}}
    patient = played(play, world, main, 4.0, **options)
    assert world.log == ["book flight", "book hotel", "cancel hotel!", "cancel flight!"]
    impatient = played(play, world, main, 2.0, **options)
    assert world.log == ["book flight", "cancel flight!"]

    assert patient.types[-1] == impatient.types[-1] == "RUN_CANCELLED"
    assert impatient.count(EventType.STEP_CANCELLED) == 1


def test_a_second_cancel_ends_the_grace_and_no_compensation(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> None:
        async with Saga() as saga:
            await saga.do(book("flight"), undo=cancel)
            await saga.do(book("hotel"), undo=cancel)

    outcome = played(
        play,
        world,
        main,
        actions=[play.cancel(7_000), play.cancel(8_000), play.cancel(8_001)],
        durations={"book": 5_000, "cancel": 100},
    )

    assert world.log == ["book flight", "cancel flight!"]
    assert outcome.types[-1] == "RUN_CANCELLED"
    assert outcome.events[-1].at_ms - outcome.events[0].at_ms == 8_100


def test_siblings_of_a_failed_action_are_awaited_and_undone(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    slow = step(name="saga.slow")(_slow(world))

    @workflow
    async def main() -> None:
        async with Saga() as saga:
            await asyncio.gather(
                saga.do(slow("hotel"), undo=cancel), saga.do(book("bad car"), undo=cancel)
            )

    outcome = played(play, world, main, durations={"slow": 3_000})

    assert isinstance(outcome.error, StepFailedError)
    assert world.log == ["slow hotel", "cancel hotel"]


def _slow(world: World) -> Any:
    async def slow(what: str) -> str:
        world.log.append(f"slow {what}")
        return what

    return slow


def test_a_timeout_undoes_what_it_cuts_off(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> str:
        try:
            async with asyncio.timeout(12), Saga(grace=1) as saga:
                for what in ("a", "b", "c"):
                    await saga.do(book(what), undo=cancel)
        except TimeoutError:
            return "too late"
        return "done"

    outcome = played(play, world, main, durations={"book": 5_000})

    assert outcome.result == "too late"
    assert world.log == ["book a", "book b", "cancel b!", "cancel a!"]


def test_an_action_that_nobody_got_is_undone_where_the_block_succeeds(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow(name="hotel or hostel")
    async def main(is_refused: bool) -> str:
        async with Saga() as saga:
            await saga.do(book("flight"), undo=cancel)
            try:
                async with asyncio.timeout(3):
                    bed = await saga.do(book("hotel"), undo=cancel)
            except TimeoutError:
                bed = await saga.do(book("hostel"), undo=cancel)
        if is_refused:
            await saga.compensate()
        return bed

    durations = {"book": 5_000}
    assert played(play, world, main, False, durations=durations).result == "hostel!"
    booked = ["book flight", "book hotel", "book hostel"]
    assert world.log == [*booked, "cancel hotel!"]
    played(play, world, main, True, durations=durations)
    assert world.log == [*booked, "cancel hotel!", "cancel hostel!", "cancel flight!"]


def test_a_cancel_during_compensations_is_raised_after_them(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> str:
        try:
            async with Saga() as saga:
                saga.add(cancel, "a")
                saga.add(cancel, "b")
                raise FatalError("x")
        except FatalError:
            return "the cancel was lost"

    outcome = played(play, world, main, actions=[play.cancel(5)], durations={"cancel": 4})

    assert outcome.types[-1] == "RUN_CANCELLED"
    assert world.log == ["cancel b", "cancel a"]


def test_after_a_cancel_a_failed_compensation_fails_the_run(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> None:
        async with Saga() as saga:
            await saga.do(book("stuck a"), undo=cancel)
            await sleep("1h")

    error = played(play, world, main, actions=[play.cancel(500)]).error

    assert isinstance(error, CompensationFailedError)
    assert isinstance(error.original, RemoteError)  # a cancel, once it has crossed
    assert len(error.exceptions) == 1


def test_it_is_undone_when_asked_for_and_once_only(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> str:
        async with Saga() as saga:
            await saga.do(book("a"), undo=cancel)
            await saga.compensate()
            await saga.do(book("b"), undo=cancel)
        await saga.compensate()
        await saga.compensate()
        return "refused"

    assert played(play, world, main).result == "refused"
    assert world.log == ["book a", "cancel a!", "book b", "cancel b!"]


def test_asked_for_compensations_that_fail_are_told(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    @workflow
    async def main() -> str:
        async with Saga() as saga:
            await saga.do(book("stuck a"), undo=cancel)
            await saga.do(book("b"), undo=cancel)
            answer = "none failed"
            try:
                await saga.compensate()
            except* StepFailedError as group:
                answer = f"{len(group.exceptions)} failed"
        return answer

    assert played(play, world, main).result == "1 failed"
    assert world.log[2:] == ["cancel b!"]


def test_sagas_nest(play: Play, world: World, book: Book, cancel: Cancel) -> None:
    async def stay(outer: Saga) -> None:
        async with Saga() as inner:
            await inner.do(book("hotel"), undo=cancel)
            await inner.do(book("meal"), undo=cancel)
        outer.add(inner.compensate)

    @workflow
    async def main() -> None:
        async with Saga() as saga:
            await saga.do(book("flight"), undo=cancel)
            await stay(saga)
            raise FatalError("x")

    assert isinstance(played(play, world, main).error, FatalError)
    assert world.log[3:] == ["cancel meal!", "cancel hotel!", "cancel flight!"]


def test_a_run_that_is_evicted_undoes_nothing(
    play: Play, world: World, book: Book, cancel: Cancel
) -> None:
    """In replay mode every turn drops the coroutine of the last one, amid the block."""

    @workflow
    async def main() -> str:
        async with Saga() as saga:
            await saga.do(book("a"), undo=cancel)
            await sleep("1h")
            await saga.do(book("b"), undo=cancel)
        return "fine"

    outcome = played(play, world, main)

    assert outcome.result == "fine"
    assert outcome.count(EventType.STEP_SCHEDULED) == 2


def test_a_coroutine_that_is_closed_undoes_nothing(world: World) -> None:
    world.begin()

    async def undo() -> None:
        world.log.append("undone")

    async def block() -> None:
        async with Saga() as saga:
            saga.add(undo)
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        coroutine = block()
        coroutine.send(None)
        coroutine.close()

    asyncio.run(main())
    assert world.log == []


def test_actions_outside_of_the_block_are_refused(play: Play, book: Book, cancel: Cancel) -> None:
    @workflow
    async def main() -> list[str]:
        saga = Saga()
        refused: list[str] = []
        for _ in range(2):
            try:
                await saga.do(book("a"), undo=cancel)
            except InvalidRequestError as error:
                refused.append(str(error))
            try:
                saga.add(cancel, "a")
            except InvalidRequestError as error:
                refused.append(str(error))
            try:
                async with saga:
                    pass
            except InvalidRequestError as error:
                refused.append(str(error))
        return refused

    refused = play(main).result

    assert len(refused) == 5
    assert refused[-1] == "a Saga is entered once; make another one"


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"grace": -1}, {"grace": "soon"}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        Saga(**options)


def test_outside_of_a_workflow_it_is_plain_asyncio() -> None:
    log: list[str] = []

    @step
    def reserve(what: str) -> str:
        return what

    async def release(what: str) -> None:
        log.append(what)

    async def main() -> None:
        async with Saga() as saga:
            assert_type(await saga.do(reserve("a"), undo=release), str)
            await saga.do(reserve("b"), undo=release)
            raise FatalError("x")

    with pytest.raises(FatalError):
        asyncio.run(main())
    assert log == ["b", "a"]


def test_the_error_crosses_boundaries_as_itself() -> None:
    error = CompensationFailedError(KeyError("why"), [ValueError("a"), FatalError("b")])
    back = decode(encode(error))

    assert type(back) is CompensationFailedError
    assert str(back) == str(error)
    assert back.original is back.exceptions[0]
    assert back.failures == back.exceptions[1:]


actions = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "stuck", "bad", "slow"]),
        st.sampled_from(["do", "do", "add", "both", "sleep"]),
    ),
    max_size=6,
)


@given(actions, st.integers(1, 3), st.one_of(st.none(), st.integers(1, 60)), st.booleans())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_sagas_undo_exactly_what_was_done(
    play: Play,
    world: World,
    book: Book,
    cancel: Cancel,
    plan: list[tuple[str, str]],
    concurrency: int,
    cancel_at: int | None,
    batch: bool,
) -> None:
    @workflow(name="random saga")
    async def main() -> str:
        async with Saga(concurrency=concurrency) as saga:
            for number, (what, how) in enumerate(plan):
                name = f"{what} {number}"
                if how == "sleep":
                    await sleep(0.002)
                elif how == "add":
                    saga.add(cancel, f"{name}!")
                    await book(name)
                elif how == "both":
                    await asyncio.gather(
                        saga.do(book(name), undo=cancel), saga.do(book(f"{name}+"), undo=cancel)
                    )
                else:
                    await saga.do(book(name), undo=cancel)
        return "done"

    cancels = [] if cancel_at is None else [play.cancel(cancel_at)]
    durations = {"book": 5, "cancel": 2}
    outcome = played(play, world, main, actions=cancels, durations=durations, batch=batch)
    registry.workflows.pop("random saga")
    booked = {line.removeprefix("book ") for line in world.log if line.startswith("book")}
    undone = [line.removeprefix("cancel ").rstrip("!") for line in world.log if "cancel" in line]

    assert len(undone) == len(set(undone))
    if outcome.result == "done":
        assert not undone
    else:
        stuck = {name for name in booked if name.startswith("stuck")}
        added = {f"{what} {n}" for n, (what, how) in enumerate(plan) if how == "add"}
        assert booked - stuck <= set(undone) | added
        assert set(undone) <= booked | added
        if stuck - added:
            assert isinstance(outcome.error, CompensationFailedError)
