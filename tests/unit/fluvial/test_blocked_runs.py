"""Runs whose app's keys cannot be used: nothing is executed, nothing is proposed."""

from __future__ import annotations

import asyncio

import pytest

from fluvial.encryption import AppKeys, KeySet
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import RevealRequest, StepRequest, TurnRequest, Unreadable
from fluvial.registry import registry
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

RUN = "run_0000000000000000000000000a"
ROOTS = {"k1": b"1" * 32}
NEWER = {"k2": b"2" * 32}
HINDRANCES = {
    "keys_frozen": KeySet(ROOTS, "k1", is_frozen=True),
    "key_missing": KeySet(NEWER, "k2"),
    "key_destroyed": KeySet(NEWER, "k2", destroyed={"k1": 1}),
}
executed: list[str] = []


@step(name="blocked.work")
async def work() -> str:
    executed.append("step")
    return "done"


@workflow(name="blocked.main")
async def main() -> str:
    executed.append("workflow")
    return await work()


@pytest.fixture
def keys() -> AppKeys:
    executed.clear()
    return AppKeys("orders", ROOTS, "k1")


def start_of(keys: AppKeys) -> Event:
    payload = keys.seal(Binding("orders", RUN, "input"), encode_call((), {}))
    return Event(EventType.RUN_STARTED, 1000, 0, payload)


def first_turn(keys: AppKeys) -> TurnRequest:
    return TurnRequest(
        run_id=RUN,
        app="orders",
        workflow="blocked.main",
        turn_id=None,
        consumed=0,
        now_ms=1000,
        events=[start_of(keys).encode()],
    )


def step_of(scheduled: Event, carry: bytes | None = None) -> StepRequest:
    return StepRequest(
        run_id=RUN,
        app="orders",
        workflow="blocked.main",
        step="blocked.work",
        id=scheduled.id,
        attempt=1,
        invocation="inv_x",
        timeout_ms=0,
        now_ms=2000,
        carry=carry,
        input=scheduled.payload,
    )


each = pytest.mark.parametrize("code", HINDRANCES)


@each
def test_a_turn_says_what_keeps_it_and_executes_nothing(keys: AppKeys, code: str) -> None:
    request = first_turn(keys)
    keys.update(HINDRANCES[code])
    answer = LiveRuns(registry, keys).turn(request)

    assert (answer.outcome, list(answer.events)) == ("blocked", [])
    assert answer.reason.startswith(f"{code}: ")
    assert executed == []


@each
def test_a_step_says_what_keeps_it_and_executes_nothing(keys: AppKeys, code: str) -> None:
    live = LiveRuns(registry, keys)
    scheduled = decode_event(live.turn(first_turn(keys)).events[0])
    keys = AppKeys("orders", ROOTS, "k1")
    keys.update(HINDRANCES[code])
    answer = asyncio.run(LiveRuns(registry, keys).step(step_of(scheduled)))

    assert (answer.outcome, list(answer.events)) == ("blocked", [])
    assert answer.reason.startswith(f"{code}: ")
    assert executed == ["workflow"]


def test_an_altered_step_input_is_not_mistaken_for_a_lost_key(keys: AppKeys) -> None:
    scheduled = decode_event(LiveRuns(registry, keys).turn(first_turn(keys)).events[0])
    moved = Event(scheduled.type, scheduled.at_ms, scheduled.id + 1, scheduled.payload)
    answer = asyncio.run(LiveRuns(registry, keys).step(step_of(moved)))

    assert answer.outcome == "ok"
    assert decode_event(answer.events[0]).type is EventType.STEP_FAILED


@each
def test_a_reveal_shows_what_opens_and_says_why_the_rest_does_not(keys: AppKeys, code: str) -> None:
    event = start_of(keys).encode()
    fired = Event(EventType.TIMER_FIRED, 1, 1).encode()
    keys.update(HINDRANCES[code])
    request = RevealRequest(run_id=RUN, app="orders", workflow="x", events=[event, fired])
    shown, nothing = LiveRuns(registry, keys).reveal(request)

    assert nothing is None
    if code == "keys_frozen":
        assert shown == "[[], {}]"
    else:
        assert isinstance(shown, Unreadable)
        assert shown.code == code
