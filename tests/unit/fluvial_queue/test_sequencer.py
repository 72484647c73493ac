"""The sequencer keeps the hand-off's invariants under every fault of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from fluvial.events import INPUTS, OUTPUTS, TERMINAL, Event, EventType
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import MessageKind
from tests.unit.fluvial_queue.sequencer_world import Program, World, play

SEEDS = 150
_DONE = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)


def _step(step_id: int, name: str = "s") -> Event:
    meta = {"name": name, "timeout_ms": 0}
    return Event(EventType.STEP_SCHEDULED, 0, step_id, b"a", meta)


def _hook(hook_id: int, *, chosen: bool) -> Event:
    return Event(EventType.HOOK_OPENED, 0, hook_id, b"", {"token": "token", "chosen": chosen})


def _timer(timer_id: int, delay_ms: int) -> Event:
    return Event(EventType.TIMER_SET, 0, timer_id, b"", {"delay_ms": delay_ms})


def _end() -> Event:
    return Event(EventType.RUN_COMPLETED, 0, 0, b"result")


def sequence(seen: Sequence[Event]) -> list[Event]:
    """Five steps, one after the other."""
    return [_step(len(seen))] if len(seen) <= 5 else [_end()]


def fan_out(seen: Sequence[Event]) -> list[Event]:
    """Three parallel steps; a step after all of them; a hook with a chosen token; done."""
    last = seen[-1]
    done = [event.id for event in seen if event.type in _DONE]
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _step(2), _step(3)]
    if last.type in _DONE and last.id <= 3:
        return [_step(4)] if len(done) == 3 else []
    if last.type in _DONE:
        return [_hook(5, chosen=True)]
    return [_end()] if last.type is EventType.HOOK_RECEIVED else []


def hook_first(seen: Sequence[Event]) -> list[Event]:
    """A hook opened up front beside a step; then a sleep unless the payload came; then both."""
    kinds = {event.type for event in seen}
    if seen[-1].type is EventType.RUN_STARTED:
        return [_hook(1, chosen=False), _step(2)]
    has_payload = EventType.HOOK_RECEIVED in kinds
    if seen[-1].type in _DONE:
        return [_end()] if has_payload else [_timer(3, 100)]
    return [_end()] if has_payload and EventType.TIMER_FIRED in kinds else []


def race(seen: Sequence[Event]) -> list[Event]:
    """A step against a timer: the loser is given up; then one more step."""
    last = seen[-1]
    rivals = [e for e in seen if e.type is EventType.TIMER_FIRED or (e.type in _DONE and e.id == 1)]
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _timer(2, 60)]
    if last in rivals and len(rivals) > 1:
        return []
    if last.type is EventType.TIMER_FIRED:
        return [Event(EventType.STEP_CANCELLED, 0, 1), _step(3)]
    if last.type in _DONE and last.id == 1:
        return [Event(EventType.TIMER_CANCELLED, 0, 2), _step(3)]
    return [_end()]


def stoppable(seen: Sequence[Event]) -> list[Event]:
    """Pairs of parallel steps until a cancel; then one step of clean-up; then cancelled."""
    asked = [i for i, event in enumerate(seen) if event.type is EventType.CANCEL_REQUESTED]
    last = seen[-1]
    if asked:
        if last.type is EventType.CANCEL_REQUESTED:
            return [_step(1_000)]
        over = last.type in _DONE and last.id == 1_000
        return [Event(EventType.RUN_CANCELLED, 0)] if over else []
    if last.type is EventType.RUN_STARTED:
        return [_step(1), _step(2)]
    done = sum(event.type in _DONE for event in seen)
    return [_step(done + 1), _step(done + 2)] if done % 2 == 0 else []


PROGRAMS = [sequence, fan_out, hook_first, race]


def _world(program: Program, seed: int, faults: int) -> World:
    now = [1_000_000]
    store = MemoryStore(now_ms=lambda: now[0])

    def tick(now_ms: int) -> None:
        now[0] = now_ms

    return World(store, program, seed, tick, faults)


def _check(program: Program, log: list[Event], end: EventType = EventType.RUN_COMPLETED) -> None:
    """The log is what the program asks for, each result once, and nothing after the end."""
    inputs = [event for event in log if event.type in INPUTS]
    outputs = [(event.type, event.id) for event in log if event.type in OUTPUTS]
    replayed: list[tuple[EventType, int]] = []
    for length in range(1, len(inputs) + 1):
        replayed += [(event.type, event.id) for event in program(inputs[:length])]
        if replayed and replayed[-1][0] in TERMINAL:
            break
    results = Counter(("result" if e.type in _DONE else e.type, e.id) for e in inputs)

    assert outputs == replayed
    assert max(results.values()) == 1
    assert [event.type for event in log if event.type in TERMINAL] == [log[-1].type]
    assert log[-1].type is end


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_run_ends_with_a_log_that_replays_without_faults(program: Program) -> None:
    for seed in range(20):
        world = _world(program, seed, faults=0)
        _check(program, play(world))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_run_ends_with_a_log_that_replays_whatever_breaks(program: Program) -> None:
    hits: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = _world(program, seed, faults=4)
        try:
            log = play(world)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, faults {world.hits}: {error}") from error
        _check(program, log)
        hits.update(world.hits)

    assert hits.keys() == {
        "answer lost",
        "instance crashed",
        "lease stolen",
        "owner crashed",
        "reply lost",
    }


@pytest.mark.parametrize("kind", [MessageKind.CANCEL, MessageKind.TERMINATE])
def test_a_run_that_is_stopped_ends_once_whatever_breaks(kind: MessageKind) -> None:
    for seed in range(SEEDS):
        world = _world(stoppable, seed, faults=3)
        world.stop_with = kind
        log = play(world)

        if kind is MessageKind.CANCEL:
            _check(stoppable, log, EventType.RUN_CANCELLED)
        else:
            assert [event.type for event in log if event.type in TERMINAL] == [
                EventType.RUN_TERMINATED
            ]
            assert log[-1].type is EventType.RUN_TERMINATED


def test_steps_in_sequence_cost_one_commit_each() -> None:
    world = _world(sequence, seed=3, faults=0)
    world.random.random = lambda: 0.5  # type: ignore[method-assign]  # no retries, no eviction

    log = play(world)

    turns = [e for e in log if e.type is EventType.STEP_SCHEDULED]
    assert len(turns) == 5
    assert [e.type for e in log] == [
        EventType.RUN_STARTED,
        *[EventType.STEP_SCHEDULED, EventType.STEP_COMPLETED] * 5,
        EventType.RUN_COMPLETED,
    ]
