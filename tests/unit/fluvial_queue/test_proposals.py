"""What instances propose is checked before it is believed, at a bounded price."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest

from fluvial.events import Event, EventType
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.proposals import (
    MAX_NAME_CHARACTERS,
    MAX_TIME_MS,
    InvalidProposalError,
    check_outputs,
    check_step_end,
)
from fluvial_queue.views import RunView

STEP = 7
MIB = 1024 * 1024


def _completed(payload: bytes = b"x", at_ms: int = 1) -> bytes:
    return Event(EventType.STEP_COMPLETED, at_ms, STEP, payload, {}).encode()


def test_a_large_payload_is_fine() -> None:
    event = check_step_end(STEP, _completed(bytes(8 * MIB)))

    assert len(event.payload) == 8 * MIB


@pytest.mark.parametrize("place", ["time", "payload", "meta", "cut off"])
def test_an_event_that_would_explode_is_refused_unread(place: str) -> None:
    many = b"\xdd\x00\x40\x00\x00" + b"\x80" * (4 * MIB)
    head = b"\x95" + msgpack.packb(int(EventType.STEP_COMPLETED))
    encoded = {
        "time": head + many + b"\x07\xc4\x00\x80",
        "payload": head + b"\x01\x07" + many + b"\x80",
        "meta": head + b"\x01\x07\xc4\x00\x81\xa1m" + many,
        "cut off": head + b"\x01\x07" + many[:-1],
    }[place]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidProposalError):
            check_step_end(STEP, encoded)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * MIB  # decoded it would be 288


@pytest.mark.parametrize("at_ms", [-1, MAX_TIME_MS + 1])
def test_times_are_times(at_ms: int) -> None:
    with pytest.raises(InvalidProposalError, match="time"):
        check_step_end(STEP, _completed(at_ms=at_ms))


def _view() -> RunView:
    record = RunRecord(
        run_id="run_0000000000000000000000000a",
        app="a",
        workflow="w",
        deployment="dpl",
        status=RunStatus.RUNNING,
        created_ms=0,
        finished_ms=None,
        key="",
        fingerprint=b"",
        input=b"",
        turn=b"",
        events=0,
        meta={},
    )
    return RunView(record)


def test_a_patch_belongs_to_the_run_itself() -> None:
    patched = Event(EventType.PATCHED, 1, meta={"patch": "x"})

    assert check_outputs(_view(), [patched.encode()]) == [patched]


@pytest.mark.parametrize(
    "event",
    [
        Event(EventType.PATCHED, 1, 1, meta={"patch": "x"}),
        Event(EventType.PATCHED, 1, 0, b"payload", {"patch": "x"}),
        Event(EventType.PATCHED, 1),
        Event(EventType.PATCHED, 1, meta={"patch": 7}),
        Event(EventType.PATCHED, 1, meta={"patch": ""}),
        Event(EventType.PATCHED, 1, meta={"patch": "x" * (MAX_NAME_CHARACTERS + 1)}),
    ],
    ids=["id", "payload", "no name", "number", "empty", "long"],
)
def test_a_patch_that_no_workflow_can_take_is_refused(event: Event) -> None:
    with pytest.raises(InvalidProposalError, match="PATCHED"):
        check_outputs(_view(), [event.encode()])


@pytest.mark.parametrize(
    "meta", [{}, {"token": "t"}, {"token": "t", "resume": ""}, {"token": "t", "resume": "r" * 513}]
)
def test_an_answer_names_the_payload_that_it_answers(meta: dict[str, object]) -> None:
    opened = Event(EventType.HOOK_OPENED, 1, 1, meta={"token": "t", "chosen": True})
    answered = Event(EventType.HOOK_ANSWERED, 1, 1, meta={"token": "t", "resume": "r", "ok": True})
    assert check_outputs(_view(), [opened.encode(), answered.encode()]) == [opened, answered]
    wrong = Event(EventType.HOOK_ANSWERED, 1, 1, meta=meta)
    with pytest.raises(InvalidProposalError, match="HOOK_ANSWERED"):
        check_outputs(_view(), [opened.encode(), wrong.encode()])
    with pytest.raises(InvalidProposalError, match="unknown id"):
        check_outputs(_view(), [answered.encode()])


ISOLATED = {"retries": 3, "first_ms": 1000, "pauses": False}


@pytest.mark.parametrize(
    "rules",
    [
        {"deadline_ms": -1},
        {"deadline_ms": "soon"},
        {"heartbeat_ms": None},
        {"isolated": True},
        {"isolated": {}},
        {"isolated": {**ISOLATED, "retries": -1}},
        {"isolated": {**ISOLATED, "first_ms": 10**18}},
        {"isolated": {**ISOLATED, "pauses": 1}},
    ],
)
def test_rules_of_a_step_that_its_owner_could_not_follow_are_refused(
    rules: dict[str, object],
) -> None:
    meta = {"name": "s", "timeout_ms": 0}
    good = {"deadline_ms": 1, "heartbeat_ms": 1, "isolated": ISOLATED}
    view = _view()

    assert check_outputs(view, [_scheduled({**meta, **good})])
    with pytest.raises(InvalidProposalError):
        check_outputs(view, [_scheduled({**meta, **rules})])


def _event(kind: EventType, id_: int = 0, **meta: object) -> bytes:
    return Event(kind, 1, id_, b"", meta).encode()


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ([_event(EventType.TIMER_FIRED, 1)], "not an output"),
        ([_event(EventType.RUN_STARTED)], "not an output"),
        ([_event(EventType.TIMER_SET, 3, delay_ms=1)] * 2, "id 3 after id 3"),
        ([_event(EventType.STEP_CANCELLED, 9)], "unknown id"),
        ([_event(EventType.RUN_COMPLETED), _event(EventType.STATE_PUBLISHED)], "after the end"),
        (
            [_event(EventType.CHILD_SCHEDULED, 1, run="run_x", workflow="w", policy="cancel")],
            "not the id of this child",
        ),
        ([_event(EventType.RUN_CONTINUED, run="run_x")], "not the next run's id"),
    ],
)
def test_what_no_workflow_can_ask_for_is_refused(outputs: list[bytes], problem: str) -> None:
    with pytest.raises(InvalidProposalError, match=problem):
        check_outputs(_view(), outputs)


def test_an_invocation_ends_its_own_step() -> None:
    assert check_step_end(STEP, _completed()).id == STEP
    with pytest.raises(InvalidProposalError, match="as the end of step"):
        check_step_end(STEP + 1, _completed())


@pytest.mark.parametrize(
    "meta",
    [{"progress": "text"}, {"progress": bytes(16 * 1024 + 1)}, {"reason": b"x"}, {"reason": ""}],
)
def test_what_a_failed_attempt_leaves_is_bounded(meta: dict[str, object]) -> None:
    good: dict[str, object] = {"delay_ms": 0, "reason": "error", "progress": bytes(16 * 1024)}

    assert check_step_end(STEP, _retrying(good)).meta == good
    with pytest.raises(InvalidProposalError):
        check_step_end(STEP, _retrying({**good, **meta}))


def _scheduled(meta: dict[str, object]) -> bytes:
    return Event(EventType.STEP_SCHEDULED, 1, STEP, b"x", meta).encode()


def _retrying(meta: dict[str, object]) -> bytes:
    return Event(EventType.STEP_RETRYING, 1, STEP, b"x", meta).encode()
