"""The sequencer keeps the hand-off's invariants under every fault of the model.

`FLUVIAL_SEEDS` sets how many worlds of each kind are played.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from fluvial.events import INPUTS, OUTPUTS, TERMINAL, Event, EventType
from fluvial_queue.messages import MessageKind
from tests.unit.fluvial_queue.sequencer_programs import (
    DONE,
    Program,
    alone,
    closing,
    continuing,
    exhausting,
    family,
    fan_out,
    hook_first,
    hurried,
    leaving,
    once,
    race,
    rivals,
    sequence,
    sleepy,
    stoppable,
)
from tests.unit.fluvial_queue.sequencer_world import World, play

SEEDS = int(os.environ.get("FLUVIAL_SEEDS", "60"))
FAULTS = 5
PROGRAMS = [sequence, fan_out, hook_first, race, closing]

each_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)


def _play(world: World, seed: int) -> list[list[Event]]:
    try:
        return play(world)
    except Exception as error:
        raise AssertionError(f"seed {seed}, hits {dict(world.hits)}: {error!r}") from error


def _check(program: Program, log: list[Event], end: EventType = EventType.RUN_COMPLETED) -> None:
    """The log is what the program asks for, each result once, and nothing after the end."""
    inputs = [event for event in log if event.type in INPUTS]
    outputs = [(event.type, event.id) for event in log if event.type in OUTPUTS]
    replayed: list[tuple[EventType, int]] = []
    for length in range(1, len(inputs) + 1):
        replayed += [(event.type, event.id) for event in program(inputs[:length])]
        if replayed and replayed[-1][0] in TERMINAL:
            break
    results = Counter(("result" if e.type in DONE else e.type, e.id) for e in inputs)

    given_up: set[int] = set()
    for event in log:
        if event.type is EventType.TIMER_CANCELLED:  # what a closed hook had accepted still comes
            given_up.add(event.id)
        assert event.type not in INPUTS or event.id not in given_up, "an input after its end"
    assert outputs == replayed
    assert max(results.values()) == 1
    assert [event.type for event in log if event.type in TERMINAL] == [log[-1].type]
    assert log[-1].type is end


@each_program
def test_a_run_ends_with_a_log_that_replays_without_faults(program: Program) -> None:
    for seed in range(20):
        for log in _play(World(program, seed, faults=0), seed):
            _check(program, log)


@each_program
def test_a_run_ends_with_a_log_that_replays_whatever_breaks(program: Program) -> None:
    hits: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = World(program, seed, faults=FAULTS)
        for log in _play(world, seed):
            _check(program, log)
        hits.update(world.hits)

    assert hits.keys() - {"effect repeated"} == {
        "answer lost",
        "diverged",
        "instance crashed",
        "lease stolen",
        "moved",
        "owner crashed",
        "reply lost",
        "resumed",
        "unavailable",
    }


def test_an_at_most_once_step_starts_once_an_attempt_whatever_breaks() -> None:
    failures: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = World(once, seed, faults=FAULTS)  # its owners watch every start
        (log,) = _play(world, seed)
        _check(once, log)
        lost = {e.id for e in log if e.type is EventType.ATTEMPT_LOST}
        assert lost <= {2}, "what runs at most once is not repeated"
        failed = [e for e in log if e.type is EventType.STEP_FAILED]
        assert all(e.meta["reason"] == "interrupted" and not e.payload for e in failed)
        failures.update(e.meta["cause"].split(":")[0] for e in failed)

    causes = {"instance_died", "link_lost", "owner_changed", "diverged"}
    assert failures.keys() == causes


def test_a_run_whose_step_is_exhausted_pauses_and_a_resume_goes_on() -> None:
    pauses = 0
    for seed in range(SEEDS):
        (log,) = _play(World(exhausting, seed, faults=FAULTS), seed)
        _check(exhausting, log)
        used_up = [e.id for e in log if e.type is EventType.STEP_RETRYING and e.id != 3]
        reasons = [e.meta["reason"] for e in log if e.type is EventType.RUN_PAUSED]
        pauses += sum(reason.startswith("step exhaustible has used up") for reason in reasons)
        assert bool(used_up) <= bool(reasons)

    assert pauses > SEEDS / 4


def test_an_isolated_step_spends_its_attempts_on_crashes_whatever_else_breaks() -> None:
    crashes, ends = 0, Counter[str]()
    for seed in range(SEEDS):
        (log,) = _play(World(alone, seed, faults=30), seed)
        _check(alone, log)
        crashed = [e for e in log if e.meta.get("cause") == "signal:9"]
        crashes += len(crashed)
        for event in crashed:
            is_last = event.meta["attempt"] > 1 and event.id % 2 == 1
            assert (event.type is EventType.STEP_FAILED) == is_last
            if "exhausted" in event.meta:
                assert event.id % 2 == 0
                assert event.meta["attempt"] > 1
            ends[event.type.name] += 1
        lost = {e.id: e.meta["reason"] for e in log if e.type is EventType.ATTEMPT_LOST}
        assert all(reason != "signal:9" for reason in lost.values())

    assert crashes > SEEDS / 10
    assert ends["STEP_RETRYING"]
    assert ends["STEP_FAILED"]


def test_a_step_ends_once_when_its_deadline_passes_whatever_breaks() -> None:
    late = 0
    for seed in range(SEEDS):
        world = World(hurried, seed, faults=FAULTS)
        world.tick_ms = 500
        (log,) = _play(world, seed)
        _check(hurried, log)
        late += sum(e.type is EventType.STEP_FAILED and e.meta["reason"] == "deadline" for e in log)

    assert late > SEEDS / 10


@pytest.mark.parametrize("program", [family, continuing], ids=lambda p: p.__name__)
def test_children_are_started_once_and_their_parent_hears_of_each_whatever_breaks(
    program: Program,
) -> None:
    hits: Counter[str] = Counter()
    ends = (EventType.RUN_COMPLETED, EventType.RUN_CONTINUED)
    for seed in range(SEEDS):
        world = World(program, seed, faults=FAULTS)
        logs = _play(world, seed)
        assert len(logs) == (3 if program is family else 4)
        for log in logs:
            _check(program, log, log[-1].type if log[-1].type in ends else ends[0])
        hits.update(world.hits)

    assert hits["effect repeated"]


def test_children_are_closed_as_their_policy_says_whatever_breaks() -> None:
    terminal: Counter[tuple[str, EventType]] = Counter()
    for seed in range(SEEDS):
        world = World(leaving, seed, faults=FAULTS)
        logs = _play(world, seed)
        assert len(logs) == 5
        parent = next(log for log in logs if log[0].meta.get("workflow") != "child")
        policies = {e.meta["run"]: e.meta["policy"] for e in parent if "policy" in e.meta}
        for run_id, log in zip(sorted(world.store.backend.runs), logs, strict=True):
            terminal[policies.get(run_id, "parent"), log[-1].type] += 1

    assert terminal["parent", EventType.RUN_COMPLETED] == SEEDS
    assert terminal["abandon", EventType.RUN_COMPLETED] == SEEDS
    assert terminal["detach", EventType.RUN_COMPLETED] == SEEDS
    # A child that ends by itself before it hears of its parent's end has ended well.
    assert terminal["cancel", EventType.RUN_CANCELLED] > SEEDS / 2
    assert terminal["terminate", EventType.RUN_TERMINATED] > SEEDS / 2


@pytest.mark.parametrize("program", [*PROGRAMS, family], ids=lambda p: p.__name__)
def test_a_run_that_is_paused_again_and_again_ends_as_ever(program: Program) -> None:
    hits: Counter[str] = Counter()
    for seed in range(SEEDS):
        world = World(program, seed, faults=2)
        world.nudges = (MessageKind.PAUSE, MessageKind.RETRY)
        for log in _play(world, seed):
            _check(program, log)
        hits.update(world.hits)

    assert hits["pause"]
    assert hits["retry"]


def test_sleeps_end_early_once_somebody_asks() -> None:
    for seed in range(SEEDS):
        world = World(sleepy, seed, faults=FAULTS)
        world.nudges = (MessageKind.WAKE,)
        (log,) = _play(world, seed)
        _check(sleepy, log)
        fired = [event for event in log if event.type is EventType.TIMER_FIRED]
        assert all(event.meta["early"] for event in fired)


def test_runs_that_want_the_same_token_all_end_whatever_breaks() -> None:
    conflicts = 0
    for seed in range(SEEDS):
        world = World(rivals, seed, faults=FAULTS, runs=3)
        for log in _play(world, seed):
            _check(rivals, log)
            conflicts += any(event.type is EventType.HOOK_CONFLICT for event in log)

    assert conflicts > SEEDS / 10


@pytest.mark.parametrize("kind", [MessageKind.CANCEL, MessageKind.TERMINATE])
def test_runs_that_are_stopped_end_once_whatever_breaks(kind: MessageKind) -> None:
    for seed in range(SEEDS):
        world = World(stoppable, seed, faults=FAULTS, runs=2)
        world.stop_with = kind
        for log in _play(world, seed):
            if kind is MessageKind.CANCEL and log[-1].type is EventType.RUN_CANCELLED:
                _check(stoppable, log, EventType.RUN_CANCELLED)
                continue
            ends = [event.type for event in log if event.type in TERMINAL]
            assert ends == [EventType.RUN_TERMINATED]  # or its clean-up took too long
            assert log[-1].type is EventType.RUN_TERMINATED


def test_what_comes_while_a_run_is_read_again_is_kept() -> None:
    async def main() -> list[Event]:
        world = World(hook_first, seed=0, faults=0)
        world.reread_rate = 0.0  # as a dispatcher: what was read once does not come again
        (run_id,) = world.run_ids
        await world.start()
        owner = await world.acquire()
        await world.go_on_until(lambda: "token" in world.store.backend.runs[run_id].hooks)
        await world.go_on_until(lambda: bool(owner.commits))
        await owner.apply(owner.commits[0])  # its reply is lost: the repeat is refused as handled
        await world.commit_next(owner)
        (load,) = owner.loads
        while not load.has_messages:
            await owner.go_on_loading(load, 100)
        await world.send_hook(run_id)
        await owner.request_window(100)
        owner.take_window()
        await world.run_to_the_end()
        return await world.events(run_id)

    _check(hook_first, asyncio.run(main()))


def test_steps_in_sequence_cost_one_commit_each() -> None:
    world = World(sequence, seed=3, faults=0)
    world.random.random = lambda: 0.5  # type: ignore[method-assign]  # no retries, no eviction

    (log,) = play(world)

    assert [e.type for e in log] == [
        EventType.RUN_STARTED,
        *[EventType.STEP_SCHEDULED, EventType.STEP_COMPLETED] * 5,
        EventType.RUN_COMPLETED,
    ]
