"""The turn engine: live, replayed, carried over; cancelled, diverged, forgotten."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import (
    FatalError,
    RemoteError,
    SerializationError,
    StepFailedError,
    WorkflowSandboxError,
)
from fluvial.events import Event, EventType, unpack_event
from fluvial.invocations import (
    TURN_ID_BYTES,
    RevealRequest,
    StepRequest,
    TurnRequest,
    Unreadable,
)
from fluvial.registry import registry
from fluvial.runs import get_run
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import Workflow, workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

RUN = "run_0000000000000000000000000a"


def started(keys: AppKeys, *args: Any) -> bytes:
    payload = keys.seal(Binding("orders", RUN, "input"), encode_call(args, {}))
    return Event(EventType.RUN_STARTED, 1000, 0, payload).encode()


def turn_of(
    flow: Workflow[..., Any], events: list[bytes], consumed: int = 0, turn: bytes | None = None
) -> TurnRequest:
    return TurnRequest(
        run_id=RUN,
        app="orders",
        workflow=flow.name,
        turn_id=turn,
        consumed=consumed,
        now_ms=1000,
        events=events,
    )


def step_of(event: Event, carry: bytes | None = None) -> StepRequest:
    return StepRequest(
        run_id=RUN,
        app="orders",
        workflow="main",
        step=event.meta["name"],
        id=event.id,
        attempt=1,
        invocation="inv_x",
        timeout_ms=0,
        now_ms=2000,
        carry=carry,
        input=event.payload,
    )


def fired(timer: int) -> bytes:
    return Event(EventType.TIMER_FIRED, 5000, timer).encode()


@pytest.fixture
def nap() -> Workflow[[], str]:
    @workflow(name="nap")
    async def nap() -> str:
        await asyncio.sleep(1)
        await asyncio.sleep(2)
        return "rested"

    return nap


def test_a_turn_id_is_random_and_names_the_coroutine(keys: AppKeys, nap: Workflow[[], str]) -> None:
    live = LiveRuns(registry, keys)
    first = live.turn(turn_of(nap, [started(keys)]))
    assert first.turn_id is not None
    second = live.turn(turn_of(nap, [fired(1)], 1, first.turn_id))

    assert len(first.turn_id) == TURN_ID_BYTES
    assert second.outcome == "ok"
    assert second.turn_id != first.turn_id
    # The first turn's id names a coroutine that has gone on since.
    assert live.turn(turn_of(nap, [fired(1)], 1, first.turn_id)).outcome == "not_live"


def test_a_run_that_was_forgotten_is_not_live(keys: AppKeys, nap: Workflow[[], str]) -> None:
    live = LiveRuns(registry, keys)
    first = live.turn(turn_of(nap, [started(keys)]))
    live.forget([RUN, "run_unknown"])

    assert live.turn(turn_of(nap, [fired(1)], 1, first.turn_id)).outcome == "not_live"
    assert live.held_bytes == 0


def test_live_runs_are_bounded_by_bytes(keys: AppKeys, nap: Workflow[[], str]) -> None:
    live = LiveRuns(registry, keys, limit_bytes=20_000)
    for number in range(50):
        run_id = f"run_{number:026d}"
        payload = keys.seal(Binding("orders", run_id, "input"), encode_call((), {}))
        event = Event(EventType.RUN_STARTED, 1000, 0, payload).encode()
        request = TurnRequest(
            run_id=run_id, app="orders", workflow="nap", turn_id=None, consumed=0, now_ms=1,
            events=[event],
        )  # fmt: skip
        assert live.turn(request).outcome == "ok"

    assert 1 <= len(live) <= 5
    assert 0 < live.held_bytes <= 20_000


def test_a_replay_with_new_inputs_proposes_only_what_is_new(
    keys: AppKeys, nap: Workflow[[], str]
) -> None:
    live = LiveRuns(registry, keys)
    log = [started(keys)]
    log += live.turn(turn_of(nap, log)).events
    log.append(fired(1))

    answer = LiveRuns(registry, keys).turn(turn_of(nap, log, 1))

    assert [Event(*_fields(e)).meta["delay_ms"] for e in answer.events] == [2000]


def _fields(data: bytes) -> tuple[Any, ...]:
    return unpack_event(data)


def test_a_step_carries_over_only_into_the_named_coroutine(keys: AppKeys) -> None:
    @step
    async def one() -> int:
        return 1

    @workflow
    async def main() -> int:
        return await one() + await one()

    async def scenario() -> None:
        live = LiveRuns(registry, keys)
        first = live.turn(turn_of(main, [started(keys)]))
        scheduled = Event(*_fields(first.events[0]))

        stale = await live.step(step_of(scheduled, carry=b"12345678"))
        assert stale.turn_id is None
        assert len(stale.events) == 1

        carried = await live.step(step_of(scheduled, carry=first.turn_id))
        assert carried.turn_id not in (None, first.turn_id)
        assert [_fields(e)[0] for e in carried.events] == [
            EventType.STEP_COMPLETED,
            EventType.STEP_SCHEDULED,
        ]
        again = await live.step(step_of(scheduled, carry=first.turn_id))
        assert again.turn_id is None

    asyncio.run(scenario())


@pytest.mark.parametrize("change", ["name", "kind", "delay", "fewer", "more", "token"])
def test_a_changed_workflow_diverges_and_proposes_nothing(keys: AppKeys, change: str) -> None:
    @step
    async def one() -> int:
        return 1

    @step
    async def other() -> int:
        return 1

    def make(is_changed: bool) -> Workflow[[], None]:
        @workflow(name="changing")
        async def changing() -> None:
            if is_changed and change == "kind":
                await asyncio.sleep(1)
            elif not (is_changed and change == "fewer"):
                await (other if is_changed and change == "name" else one)()
            await asyncio.sleep(2 if is_changed and change == "delay" else 1)
            if is_changed and change == "more":
                await asyncio.gather(one(), one())
            else:
                await one()

        return changing

    async def record() -> list[bytes]:
        flow = make(False)
        live = LiveRuns(registry, keys)
        log = [started(keys)]
        log += live.turn(turn_of(flow, log)).events
        done = await live.step(step_of(Event(*_fields(log[-1]))))
        log += done.events
        log += live.turn(turn_of(flow, log, 1)).events
        log.append(fired(2))
        log += live.turn(turn_of(flow, log, 2)).events
        return log

    log = asyncio.run(record())
    assert LiveRuns(registry, keys).turn(turn_of(make(False), log, 3)).outcome == "ok"
    if change == "token":
        log = [log[0], *log[2:]]  # an output is missing from the log

    live = LiveRuns(registry, keys)
    answer = live.turn(turn_of(make(True), log, 3))

    assert answer.outcome == "diverged"
    assert answer.events == ()
    assert answer.reason
    assert len(live) == 0


def test_the_reason_of_a_divergence_names_both_sides(keys: AppKeys) -> None:
    @workflow(name="naps")
    async def first() -> None:
        await asyncio.sleep(1)

    live = LiveRuns(registry, keys)
    log = [started(keys)]
    log += live.turn(turn_of(first, log)).events
    registry.workflows.clear()

    @workflow(name="naps")
    async def second() -> None:
        await asyncio.sleep(7)

    reason = live.turn(turn_of(second, log, 1)).reason

    assert "- recorded: TIMER_SET 1000 ms (operation 1)" in reason
    assert "+ now:      TIMER_SET 7000 ms (operation 1) at " in reason


def test_a_result_for_something_never_asked_diverges(keys: AppKeys, nap: Workflow[[], str]) -> None:
    live = LiveRuns(registry, keys)
    first = live.turn(turn_of(nap, [started(keys)]))

    answer = live.turn(turn_of(nap, [fired(9)], 1, first.turn_id))

    assert answer.outcome == "diverged"
    assert "operation 9" in answer.reason
    assert len(live) == 0  # nobody may go on with a coroutine that is half advanced


def test_a_tampered_input_is_refused_and_nothing_is_proposed(
    keys: AppKeys, nap: Workflow[[], str]
) -> None:
    payload = keys.seal(Binding("orders", "run_other", "input"), encode_call((), {}))
    event = Event(EventType.RUN_STARTED, 1000, 0, payload).encode()

    answer = LiveRuns(registry, keys).turn(turn_of(nap, [event]))

    assert answer.outcome == "diverged"
    assert "altered or belongs elsewhere" in answer.reason


def test_an_unknown_workflow_or_a_damaged_log_is_refused(keys: AppKeys) -> None:
    live = LiveRuns(registry, keys)
    for events in ([], [b"nonsense"], [fired(1)]):
        request = TurnRequest(
            run_id=RUN, app="orders", workflow="gone", turn_id=None, consumed=0, now_ms=1,
            events=events,
        )  # fmt: skip
        assert live.turn(request).outcome == "diverged"


def test_cancel_runs_durable_clean_up(play: Play) -> None:
    @step
    async def charge() -> str:
        return "charge"

    @step
    async def refund(charge_id: str) -> None:
        assert charge_id == "charge"

    @workflow
    async def main() -> None:
        charge_id = await charge()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await refund(charge_id)
            raise

    outcome = play(main, actions=[play.cancel(10)])

    assert outcome.types == [
        "RUN_STARTED",
        "STEP_SCHEDULED",
        "STEP_COMPLETED",
        "TIMER_SET",
        "CANCEL_REQUESTED",
        "TIMER_CANCELLED",
        "STEP_SCHEDULED",
        "STEP_COMPLETED",
        "RUN_CANCELLED",
    ]


def test_a_workflow_may_answer_a_cancel_with_a_result(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "stopped early"
        return "slept"

    assert play(main, actions=[play.cancel(10)]).result == "stopped early"


def test_cancel_of_a_gather_cancels_every_step(play: Play) -> None:
    @step
    async def slow() -> None: ...

    @workflow
    async def main() -> None:
        await asyncio.gather(slow(), slow(), slow())

    outcome = play(main, actions=[play.cancel(5)], durations={"slow": 100})

    assert outcome.count(EventType.STEP_CANCELLED) == 3
    assert outcome.types[-1] == "RUN_CANCELLED"


def test_a_failed_step_raises_with_its_cause(play: Play) -> None:
    class OrderError(Exception):
        pass

    @step(retries=0)
    async def fail(kind: str) -> None:
        if kind == "builtin":
            raise KeyError("missing")
        if kind == "fatal":
            raise FatalError("never again")
        raise OrderError("custom") from ValueError("inner")

    @workflow
    async def main() -> list[Any]:
        causes: list[Any] = []
        for kind in ("builtin", "fatal", "custom"):
            try:
                await fail(kind)
            except StepFailedError as error:
                causes.append(error.__cause__)
        return causes

    builtin, fatal, custom = play(main).result

    assert isinstance(builtin, KeyError)
    assert builtin.args == ("missing",)
    assert isinstance(fatal, FatalError)
    assert isinstance(custom, RemoteError)
    assert "OrderError: custom" in str(custom)
    assert isinstance(custom.__cause__, ValueError)
    assert any("in fail" in note for note in custom.__notes__)


def test_a_workflow_that_raises_fails_the_run(play: Play) -> None:
    @workflow
    async def main() -> None:
        raise ValueError("bad order")

    outcome = play(main)

    assert outcome.types == ["RUN_STARTED", "RUN_FAILED"]
    assert outcome.events[-1].meta == {"reason": "exception"}
    assert isinstance(outcome.error, ValueError)


def test_an_unhandled_step_failure_is_the_reason(play: Play) -> None:
    @step(retries=0)
    async def fail() -> None:
        raise ValueError("x")

    @workflow
    async def main() -> None:
        await fail()

    outcome = play(main)

    assert outcome.events[-1].meta == {"reason": "step_failed"}
    assert isinstance(outcome.error, StepFailedError)
    assert isinstance(outcome.error.__cause__, ValueError)


def test_a_result_that_cannot_be_stored_fails_the_run(play: Play) -> None:
    @workflow
    async def main() -> object:
        return {"client": object()}

    outcome = play(main)

    assert outcome.events[-1].meta == {"reason": "not_serializable"}
    assert "result['client']" in str(outcome.error)


def test_an_argument_that_cannot_be_stored_raises_at_the_call(play: Play) -> None:
    @step
    async def use(thing: Any) -> None: ...

    @workflow
    async def main() -> str:
        try:
            await use({"client": object()})
        except SerializationError as error:
            return error.path
        return ""

    assert play(main).result == "args[0]['client']"


def test_arguments_that_do_not_fit_fail_the_run(play: Play) -> None:
    @workflow
    async def main(order: int) -> None: ...

    outcome = play(main, 1, 2)

    assert outcome.events[-1].meta == {"reason": "invalid_input"}
    assert "too many positional arguments" in str(outcome.error)


def test_calls_of_the_platform_are_refused_in_workflow_code(play: Play) -> None:
    @workflow
    async def main() -> None:
        await get_run(RUN)

    outcome = play(main)

    assert isinstance(outcome.error, WorkflowSandboxError)
    assert "do it in a step" in str(outcome.error)


def test_sys_exit_in_a_workflow_fails_the_run_only(play: Play) -> None:
    @workflow
    async def main() -> None:
        raise SystemExit(3)

    outcome = play(main)

    assert outcome.types[-1] == "RUN_FAILED"


def test_a_discarded_coroutine_asks_for_nothing(keys: AppKeys) -> None:
    closed: list[str] = []

    @step
    async def clean() -> None: ...

    @workflow
    async def main() -> None:
        try:
            await asyncio.gather(asyncio.sleep(5), asyncio.sleep(6))
        finally:
            closed.append("closed")
            await clean()
            closed.append("not reached")

    live = LiveRuns(registry, keys)
    live.turn(turn_of(main, [started(keys)]))
    live.forget([RUN])

    assert closed == ["closed"]


def test_too_many_operations_in_one_turn_fail_the_run(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial.journal.MAX_OUTPUTS", 20)

    @step
    async def one() -> None: ...

    @workflow
    async def main() -> None:
        await asyncio.gather(*(one() for _ in range(21)))

    outcome = play(main)

    assert outcome.types == ["RUN_STARTED", "RUN_FAILED"]
    assert outcome.events[-1].meta == {"reason": "turn_too_large"}


def test_a_task_left_behind_does_not_hold_up_the_end(play: Play) -> None:
    @step
    async def slow() -> None: ...

    @workflow
    async def main() -> str:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0.001)
        return f"{task.done()}"

    outcome = play(main, durations={"slow": 100})

    assert outcome.result == "False"
    assert outcome.types[-1] == "RUN_COMPLETED"


def test_what_is_only_begun_when_the_workflow_returns_never_existed(play: Play) -> None:
    @step
    async def slow() -> None: ...

    @workflow
    async def main() -> str:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        return f"{task.done()}"

    assert play(main).types == ["RUN_STARTED", "RUN_COMPLETED"]


def test_reveal_renders_every_payload(play: Play, keys: AppKeys) -> None:
    @step(retries=0)
    async def fail(order: str) -> None:
        raise ValueError("secret detail")

    @workflow
    async def main(order: str) -> str:
        try:
            await fail(order)
        except StepFailedError:
            return "ok"
        return ""

    outcome = play(main, "o-1")
    request = RevealRequest(
        run_id=RUN, app="orders", workflow="main", events=[e.encode() for e in outcome.events]
    )
    texts = LiveRuns(registry, keys).reveal(request)

    assert texts[0] == '[["o-1"], {}]'
    assert texts[1] == '[["o-1"], {}]'
    assert isinstance(texts[2], str)
    assert texts[2].startswith("ValueError: secret detail")
    assert texts[3] == '"ok"'


def test_reveal_says_what_cannot_be_opened(keys: AppKeys) -> None:
    event = Event(EventType.RUN_STARTED, 1, 0, b"\x01\x02k1damaged-and-too-short").encode()
    request = RevealRequest(run_id=RUN, app="orders", workflow="main", events=[event])

    (shown,) = LiveRuns(registry, keys).reveal(request)

    assert isinstance(shown, Unreadable)
    assert shown.code == "not_decryptable"
    assert "altered" in shown.message
