"""What must hold of a world that is over: the promises, as far as a log and a store show them.

P1 every run ends and leaves nothing behind; P2 each result is recorded once; P3 extra executions
have their records; P5 the log replays; P6 no timer is early; P9 an accepted payload comes once;
P10 nothing stands behind the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fluvial.checks import CheckRequest
from fluvial.codec import decode
from fluvial.events import TERMINAL, Event, EventType
from fluvial.registry import registry
from fluvial.replays import Replays
from fluvial_queue.memory.state import Run
from fluvial_queue.views import unpack_turn
from tests.campaign.programs import is_right
from tests.campaign.world import APP, World

_STEP_ENDS = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)
_ONCE = {
    EventType.TIMER_FIRED: "timer",
    EventType.HOOK_CONFLICT: "conflict",
    EventType.CHILD_COMPLETED: "child",
    EventType.CHILD_FAILED: "child",
    **dict.fromkeys(_STEP_ENDS, "step"),
}
_GIVES_UP = (
    EventType.STEP_CANCELLED,
    EventType.STEP_ABANDONED,
    EventType.TIMER_CANCELLED,
    EventType.CHILD_CANCELLED,
)
_ENDS_OF = {
    "completed": EventType.RUN_COMPLETED,
    "failed": EventType.RUN_FAILED,
    "cancelled": EventType.RUN_CANCELLED,
    "terminated": EventType.RUN_TERMINATED,
    "continued": EventType.RUN_CONTINUED,
}


def check(world: World) -> None:
    """Check every run of a world that is over.

    Raises:
        AssertionError: something does not hold; the message says what, and of which run.
    """
    for run in world.runs:
        log = world.events(run)
        try:
            _check_shape(run, log)
            _check_operations(world, log)
            _check_payloads(world, run, log)
            _check_executions(world, run, log)
            _check_replay(world, run)
            _check_end(world, run, log)
        except AssertionError as error:
            raise AssertionError(f"{run.start.run_id} ({run.start.workflow}): {error}") from error


def _check_shape(run: Run, log: Sequence[Event]) -> None:
    types = [event.type for event in log]
    stopped = ([EventType.RUN_TERMINATED], [EventType.RUN_CANCELLED])
    begins = 0 if types in stopped else 1  # it may be stopped before it has begun
    assert types[:begins] == [EventType.RUN_STARTED] * begins, f"begins with {types[0].name}"
    assert types.count(EventType.RUN_STARTED) == begins, "started twice"
    ends = [event_type for event_type in types if event_type in TERMINAL]
    assert ends == types[-1:], f"ends with {[e.name for e in ends]}, and the log with {types[-1]}"
    assert ends == [_ENDS_OF[run.status.value]], f"{run.status}, and the log ends with {ends}"


def _check_operations(world: World, log: Sequence[Event]) -> None:
    """Each operation has one end, after it was asked for, and hears of nothing when given up."""
    asked: dict[int, Event] = {}
    ended: set[tuple[str, int]] = set()
    given_up: set[int] = set()
    attempts: Counter[int] = Counter()
    for event in log:
        if event.type in _GIVES_UP:
            given_up.add(event.id)
        elif event.type in _ONCE:
            kind = _ONCE[event.type]
            assert event.id not in given_up, f"{event.type.name} {event.id} after it was given up"
            assert (kind, event.id) not in ended, f"{event.type.name} {event.id} twice"
            assert event.id in asked, f"{event.type.name} {event.id} of nothing"
            ended.add((kind, event.id))
            if event.type is EventType.TIMER_FIRED and "wake" not in world.plan.steering:
                begun = asked[event.id]
                assert event.at_ms >= begun.at_ms + begun.meta["delay_ms"], "an early timer"
        elif event.type is EventType.HOOK_RECEIVED:
            assert event.id in asked, "a payload before its hook"
        elif event.type is EventType.STEP_RETRYING:
            attempts[event.id] += 1
            assert ("step", event.id) not in ended, "an attempt after the result"
            assert event.meta["attempt"] == attempts[event.id], "attempts do not count up"
        elif event.id and event.type.name.endswith(("_SCHEDULED", "_SET", "_OPENED")):
            assert event.id not in asked, f"operation {event.id} twice"
            asked[event.id] = event


def _check_payloads(world: World, run: Run, log: Sequence[Event]) -> None:
    """What was accepted for a hook came once, in that order, until the run ended."""
    accepted: dict[str, list[str]] = {}
    for resume_id, (run_id, token) in world.payloads.items():
        if run_id == run.start.run_id:
            accepted.setdefault(token, []).append(resume_id)
    received: dict[str, list[str]] = {}
    for event in log:
        if event.type is EventType.HOOK_RECEIVED:
            received.setdefault(event.meta["token"], []).append(event.meta["resume"])
    for token, resume_ids in received.items():
        expected = accepted.get(token, [])[: len(resume_ids)]
        assert resume_ids == expected, f"received {resume_ids}, accepted {accepted.get(token)}"


def _check_executions(world: World, run: Run, log: Sequence[Event]) -> None:
    """A body runs again only with a record of why."""
    recorded = Counter(
        event.id for event in log if event.type in (EventType.STEP_RETRYING, EventType.ATTEMPT_LOST)
    )
    for (run_id, step_id), executions in world.outside.bodies.items():
        if run_id == run.start.run_id:
            allowed = 1 + recorded[step_id]
            assert executions <= allowed, f"step {step_id} ran {executions} times, not {allowed}"


def _check_replay(world: World, run: Run) -> None:
    """A fresh instance comes from the log to the same outputs, with the same values in them."""
    if not run.turn:
        return
    consumed, _ = unpack_turn(run.turn)
    request = CheckRequest(
        run_id=run.start.run_id,
        app=APP,
        workflow=run.start.workflow,
        consumed=consumed,
        compares_values=world.plan.compares_values,
        events=run.log,
        partitions=world.store.partitions,
    )
    report = Replays(registry, world.keys).check(request)
    assert report.verdict == "ok", f"does not replay: {report.detail}"
    assert not report.warnings, f"replays with other values: {report.warnings}"


def _check_end(world: World, run: Run, log: Sequence[Event]) -> None:
    """Unless somebody stopped it, it has come to what its program says."""
    last = log[-1]
    is_stopped = {"cancel", "terminate"} & set(world.plan.steering) or "parent" in run.start.meta
    if last.type is EventType.RUN_COMPLETED:
        keys = world.keys.for_run(run.start.run_id)
        result: Any = decode(keys.open(last.payload, "result"))
        (size, *_), _ = decode(keys.open(log[0].payload, "input"))
        assert is_right(run.start.workflow, size, result), f"came to {result!r}"
    else:
        assert last.type is EventType.RUN_CONTINUED or is_stopped, f"ended with {last.type.name}"
