"""Moments of the sequencer that a random schedule seldom meets, or whose harm it would not see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import Answer
from fluvial_queue.contract import CommitAnswer, CommitEntry, CommitOutcome
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.sequencer import CANCEL_GRACE_MS
from fluvial_queue.views import cancel_deadline_body, step_body, timer_body
from tests.unit.fluvial_queue.sequencer_owner import LOST_LIMIT, Owner
from tests.unit.fluvial_queue.sequencer_programs import (
    Program,
    family,
    fan_out,
    leaving,
    quitting,
    race,
    rivals,
    sequence,
    stoppable,
)
from tests.unit.fluvial_queue.sequencer_world import World

Moment = Callable[[World, Owner], Awaitable[None]]


def at(program: Program, moment: Moment) -> None:
    """Have a run of `program` started and owned, then let a test go on; nothing breaks."""

    async def main() -> None:
        world = World(program, seed=0, faults=0)
        world.reread_rate = 0.0
        await world.start()
        await moment(world, await world.acquire())

    asyncio.run(main())


def jobs_of(owner: Owner, kind: str) -> list[Job]:
    return [job for job in owner.jobs if job.kind == kind]


def take_job(owner: Owner, kind: str) -> Job:
    """Take an invocation away from what the world may answer by itself."""
    job = jobs_of(owner, kind)[0]
    owner.jobs.remove(job)
    return job


def complete(owner: Owner, job: Job) -> None:
    """Answer a step's invocation, without a turn."""
    end = Event(EventType.STEP_COMPLETED, 0, job.step_id, b"r")
    owner.sequencer.answered(job, Answer(outcome="ok", events=[end.encode()]), "ins0", {})


async def evaluate(world: World, owner: Owner) -> None:
    """Answer the turn that is under way."""
    job = take_job(owner, "turn")
    instance, answer = await world.evaluate(job)
    owner.sequencer.answered(job, answer, instance, {})


async def ask(world: World, owner: Owner, kind: MessageKind, **meta: object) -> None:
    """Send something to the run, and have its owner read it."""
    (run_id,) = world.run_ids
    await send(world, owner, Message(kind, run_id, meta=meta).encode())


async def send(world: World, owner: Owner, body: bytes) -> None:
    (run_id,) = world.run_ids
    await world.store.send(run_id, body)
    await owner.request_window(100)
    owner.take_window()


async def refuse(owner: Owner) -> CommitEntry:
    """Have the store refuse the commit under way, and the run read again; return the entry."""
    entry = owner.commits.pop()
    owner.sequencer.committed(entry, CommitAnswer(CommitOutcome.SEQUENCE))
    while owner.loads:
        await owner.go_on_loading(owner.loads[0], 100)
    return entry


def types_of(entry: CommitEntry) -> list[str]:
    return [decode_event(event).type.name for event in entry.events]


def test_a_former_owner_begins_nothing() -> None:
    async def moment(world: World, owner: Owner) -> None:
        window = await world.store.window(owner.lease, after="", limit=10)
        owner.sequencer.abandon()
        for message in window or ():
            owner.sequencer.offer(message)

        assert (owner.loads, owner.sequencer.outstanding()) == ([], 0)

    at(sequence, moment)


def test_an_invocation_that_is_over_is_not_heard_any_more() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: bool(jobs_of(owner, "turn")))
        job = take_job(owner, "turn")
        owner.sequencer.unavailable(job, "no room", final=False)
        assert jobs_of(owner, "turn"), "it is asked for again"
        instance, answer = await world.evaluate(job)
        owner.sequencer.answered(job, answer, instance, {})

        assert owner.commits == []

    at(sequence, moment)


def test_results_wait_for_the_turn_that_is_under_way() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)
        (turn,) = jobs_of(owner, "turn")
        complete(owner, take_job(owner, "step"))
        assert owner.commits == []

        instance, answer = await world.evaluate(turn)
        owner.sequencer.answered(turn, answer, instance, {})
        (entry,) = owner.commits
        assert types_of(entry) == ["STEP_COMPLETED"]
        assert entry.turn is not None

    at(fan_out, moment)


def test_a_turn_whose_claims_come_after_a_cancel_is_thrown_away() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: bool(owner.claims))
        await ask(world, owner, MessageKind.CANCEL)
        assert [types_of(entry) for entry in owner.commits] == [["CANCEL_REQUESTED"]]
        await world.commit_next(owner)
        await owner.settle_claim()

        assert owner.commits == []
        (turn,) = jobs_of(owner, "turn")
        assert turn.inputs == 2

    at(rivals, moment)


def test_a_step_that_comes_with_a_pause_takes_no_turn_along() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: any(job.carry for job in owner.jobs))
        await ask(world, owner, MessageKind.RESUME)  # it is moot: an entry without events
        await ask(world, owner, MessageKind.PAUSE)
        job = take_job(owner, "step")
        end = Event(EventType.STEP_COMPLETED, 0, job.step_id, b"r")
        asked = Event(EventType.STEP_SCHEDULED, 0, 2, b"", {"name": "s", "timeout_ms": 0})
        events = [end.encode(), asked.encode()]
        answer = Answer(outcome="ok", turn_id=bytes(8), events=events)
        owner.sequencer.answered(job, answer, "ins0", {})
        await world.commit_next(owner)

        (entry,) = owner.commits
        assert types_of(entry) == ["RUN_PAUSED", "STEP_COMPLETED"]
        assert entry.turn is None

    at(sequence, moment)


def test_the_next_turn_of_a_live_run_needs_no_log() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)

        (turn,) = jobs_of(owner, "turn")
        assert (turn.replay, turn.view.consumed) == (False, 1)

    at(fan_out, moment)


def test_a_result_whose_entry_was_refused_is_offered_again() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        complete(owner, take_job(owner, "step"))
        refused = await refuse(owner)

        (entry,) = owner.commits
        assert (types_of(entry), entry.handled) == (["STEP_COMPLETED"], refused.handled)

    at(fan_out, moment)


def test_an_effect_whose_end_was_refused_is_not_carried_out_again() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: len(owner.effects) == 2)
        view, message_id, _ = effect = owner.effects.pop()
        assert await owner.carry_out_next(effect)
        owner.sequencer.carried_out(view.run_id, message_id, "")
        await refuse(owner)

        (entry,) = owner.commits
        assert (entry.run_id, entry.handled) == (run_id, (message_id,))
        assert message_id not in [carried for _, carried, _ in owner.effects]

    at(family, moment)


@pytest.mark.parametrize(("kind", "lost"), [("turn", "TURN_LOST"), ("step", "ATTEMPT_LOST")])
def test_what_is_cut_off_again_and_again_pauses_the_run(kind: str, lost: str) -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: bool(jobs_of(owner, kind)))
        told: list[list[str]] = []
        for _ in range(LOST_LIMIT):
            owner.sequencer.lost(take_job(owner, kind), "instance_died")
            told.append(types_of(owner.commits[0]))
            await world.commit_next(owner)

        assert told == [*[[lost]] * (LOST_LIMIT - 1), [lost, "RUN_PAUSED"]]
        assert owner.jobs == []

    at(sequence, moment)


def test_a_message_for_an_attempt_that_is_over_is_only_deleted() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        await send(world, owner, step_body(run_id, 1, 7))

        (entry,) = owner.commits
        assert (entry.events, len(entry.handled)) == ((), 1)
        await world.commit_next(owner)
        assert len(owner.jobs) == 3

    at(fan_out, moment)


@pytest.mark.parametrize("delay_ms", [0, 50])
def test_the_next_attempt_comes_when_its_wait_is_over(delay_ms: int) -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        job = take_job(owner, "step")
        meta = {"reason": "exception", "delay_ms": delay_ms}
        end = Event(EventType.STEP_RETRYING, 0, job.step_id, b"e", meta)
        owner.sequencer.answered(job, Answer(outcome="ok", events=[end.encode()]), "ins0", {})

        (entry,) = owner.commits
        again = step_body(run_id, job.step_id, 2)
        assert entry.timers == (((delay_ms, again),) if delay_ms else ())
        assert entry.messages == (() if delay_ms else (again,))

    at(fan_out, moment)


def test_a_deadline_that_passes_as_a_turn_gives_its_step_up_is_moot() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: bool(jobs_of(owner, "step")))
        take_job(owner, "step")
        await world.go_on_until(lambda: bool(jobs_of(owner, "turn")))
        turn = take_job(owner, "turn")
        await send(world, owner, timer_body(run_id, 1))
        instance, answer = await world.evaluate(turn)
        owner.sequencer.answered(turn, answer, instance, {})

        (entry,) = owner.commits
        assert types_of(entry) == ["STEP_CANCELLED", "STEP_SCHEDULED"]

    at(race, moment)


def test_to_wake_a_run_ends_no_timeout() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: bool(jobs_of(owner, "step")))
        await ask(world, owner, MessageKind.WAKE)

        (entry,) = owner.commits
        assert (entry.events, len(entry.handled)) == ((), 1)

    at(race, moment)


def test_one_wake_up_is_enough_for_results_that_follow_each_other() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        complete(owner, take_job(owner, "step"))
        assert len(owner.commits[0].messages) == 1
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)

        (entry,) = owner.commits
        assert (types_of(entry), entry.messages) == (["STEP_COMPLETED"], ())

    at(fan_out, moment)


def test_what_is_known_before_the_start_waits_for_it() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        tag = Message(MessageKind.TAG, run_id, meta={"tags": {"a": "b"}})
        await world.store.send(run_id, tag.encode())
        window = await world.store.window(owner.lease, after="", limit=10)
        assert window is not None
        start, tags = window
        owner.sequencer.offer(tags)
        await owner.go_on_loading(owner.loads[0], 100)
        assert owner.commits == []
        owner.sequencer.offer(start)

        assert types_of(owner.commits[0]) == ["RUN_STARTED"]

    at(sequence, moment)


def test_a_run_is_cancelled_once_and_within_its_grace() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: bool(jobs_of(owner, "step")))
        await ask(world, owner, MessageKind.CANCEL)
        assert owner.commits[0].timers == ((CANCEL_GRACE_MS, cancel_deadline_body(run_id)),)
        await world.commit_next(owner)
        await ask(world, owner, MessageKind.CANCEL)

        (entry,) = owner.commits
        assert (entry.events, entry.timers) == ((), ())

    at(stoppable, moment)


def test_a_pause_takes_what_could_be_dispatched_out_of_the_queue() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: any(len(entry.messages) == 3 for entry in owner.commits))
        await ask(world, owner, MessageKind.PAUSE)
        await world.commit_next(owner)

        (entry,) = owner.commits
        assert types_of(entry) == ["RUN_PAUSED"]
        assert len(entry.handled) == 1 + 3

    at(fan_out, moment)


def test_a_resume_waits_for_the_results_that_come_with_it() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(jobs_of(owner, "step")) == 3)
        await ask(world, owner, MessageKind.PAUSE)
        await world.commit_next(owner)
        complete(owner, take_job(owner, "step"))
        await ask(world, owner, MessageKind.RESUME)
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)
        assert [types_of(entry) for entry in owner.commits] == [["STEP_COMPLETED"]]
        await world.commit_next(owner)

        assert [types_of(entry) for entry in owner.commits] == [["RUN_RESUMED"]]

    at(fan_out, moment)


def test_effects_for_one_run_are_carried_out_in_order() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: len(owner.effects) == 4 and bool(owner.jobs))
        (view, message_id, starts), *_ = started = owner.effects[:]
        owner.effects.clear()  # they are under way
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)
        await evaluate(world, owner)
        await world.commit_next(owner)
        assert owner.effects == []

        assert await owner.carry_out_next(started[0])
        owner.sequencer.carried_out(view.run_id, message_id, "")
        await world.commit_next(owner)
        ((_, _, closes),) = owner.effects
        assert (starts.meta["run"], closes.meta["do"]) == (closes.meta["run"], "cancel")

    at(leaving, moment)


def test_a_child_that_its_parent_gives_up_as_it_ends_is_closed_once() -> None:
    async def moment(world: World, owner: Owner) -> None:
        await world.go_on_until(lambda: bool(jobs_of(owner, "step")))
        complete(owner, take_job(owner, "step"))
        await world.commit_next(owner)
        await evaluate(world, owner)

        (entry,) = owner.commits
        assert types_of(entry) == ["CHILD_CANCELLED", "RUN_COMPLETED"]
        assert len(entry.effects) == 1

    at(quitting, moment)


def test_only_the_child_itself_ends_the_wait_for_it() -> None:
    async def moment(world: World, owner: Owner) -> None:
        (run_id,) = world.run_ids
        await world.go_on_until(lambda: bool(owner.effects))
        child = owner.effects[0][2].meta["run"]
        for first, events in ((run_id, []), (child, ["CHILD_COMPLETED"])):
            meta = {"first": first, "hops": 0, "child": first, "status": "completed", "reason": ""}
            body = Message(MessageKind.CHILD, run_id, 1, 0, meta, b"result").encode()
            await send(world, owner, body)
            assert [types_of(entry) for entry in owner.commits] == [events]
            await world.commit_next(owner)

    at(family, moment)
