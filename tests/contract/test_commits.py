"""Commits: guarded in order, atomic, answered per entry."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.ids import new_run_id
from fluvial_queue import Store
from fluvial_queue.contract import (
    MAX_VALUE_BYTES,
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    RunQuery,
    RunStatus,
    message_order,
)
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message, MessageKind

if TYPE_CHECKING:
    from tests.contract.conftest import Backend

OK, EPOCH = CommitOutcome.OK, CommitOutcome.EPOCH
GONE, SEQUENCE = CommitOutcome.GONE, CommitOutcome.SEQUENCE


def test_commit_applies_everything_at_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        first = run.handle
        answer = await run.commit(
            events=(b"e1", b"e2"),
            messages=(b"m1", b"m2"),
            timers=((60_000, run.timer(1)),),
            open_hooks=(("token", OpenHook(7, 0)),),
            status=RunStatus.RUNNING,
            turn=b"turn-1",
        )

        assert answer.outcome is OK
        assert await store.read_events(run.run_id) == [b"e1", b"e2"]
        messages = await run.messages()
        assert [(m.id, m.epoch, m.body) for m in messages] == [
            (answer.message_ids[0], run.lease.epoch, b"m1"),
            (answer.message_ids[1], run.lease.epoch, b"m2"),
        ]
        assert first not in answer.message_ids
        assert await store.open_hooks(run.run_id) == {"token": OpenHook(7, 0)}
        assert await store.depth([run.lease.partition]) == (2, 1)
        record = await run.record()
        assert (record.status, record.turn, record.events) == (RunStatus.RUNNING, b"turn-1", 2)
        assert record.input == b""

    backend.run(main)


def test_unset_fields_leave_status_turn_and_deployment_alone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(
            events=(b"e",),
            messages=(b"m",),
            status=RunStatus.RUNNING,
            turn=b"t",
            deployment="dpl_2",
        )
        await run.commit(events=(b"e",), messages=(b"m",))

        record = await run.record()
        assert (record.status, record.turn, record.events) == (RunStatus.RUNNING, b"t", 2)
        assert record.deployment == "dpl_2"

    backend.run(main)


def test_a_run_moves_to_another_deployment_with_its_entry_or_not_at_all(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        was = (await run.record()).deployment
        refused = await run.commit(base=7, events=(b"e",), deployment="dpl_2")
        assert refused.outcome is SEQUENCE
        assert (await run.record()).deployment == was

        await run.commit(events=(b"e",), status=RunStatus.COMPLETED, deployment="dpl_2")

        assert (await run.record()).deployment == "dpl_2"
        listed = (await store.query_runs(RunQuery())).runs
        assert [found.deployment for found in listed] == ["dpl_2"]

    backend.run(main)


def test_input_stays_until_the_first_event(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(messages=(b"m",))
        assert (await run.record()).input == b"sealed"

        await run.commit(events=(b"started",))
        assert (await run.record()).input == b""

    backend.run(main)


def test_message_ids_grow(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        ids = [run.handle]
        for _ in range(20):
            answer = await run.commit(messages=(b"m", b"m", b"m"))
            ids += answer.message_ids

        assert ids == sorted(set(ids), key=message_order)

    backend.run(main)


def test_repeated_commit_answers_gone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        entry = run.entry(events=(b"e",), messages=(b"m",))
        await store.commit(run.lease, [entry])
        (again,) = (await store.commit(run.lease, [entry])).answers

        assert again == CommitAnswer(GONE)
        assert await store.read_events(run.run_id) == [b"e"]
        assert len(await run.messages()) == 1

    backend.run(main)


def test_other_base_answers_sequence_and_writes_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        before = await run.messages()
        answer = await run.commit(base=1, events=(b"e",), messages=(b"m",), turn=b"t")

        assert answer == CommitAnswer(SEQUENCE)
        assert await run.messages() == before
        assert (await run.record()).turn == b""

    backend.run(main)


def test_an_entry_for_a_shorter_log_answers_sequence(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        before = await run.commit(base=0, events=(b"e",), messages=(b"m",))
        answer = await run.commit(handled=before.message_ids, base=0, events=(b"e",))

        assert answer == CommitAnswer(SEQUENCE)
        assert (await run.record()).events == 1

    backend.run(main)


def test_one_missing_message_refuses_the_whole_entry(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        answer = await run.commit(handled=(run.handle, "1-1"), events=(b"e",))

        assert answer.outcome is GONE
        assert [m.id for m in await run.messages()] == [run.handle]

    backend.run(main)


def test_message_of_another_run_is_not_handled(backend: Backend) -> None:
    async def main(store: Store) -> None:
        mine = await backend.owned_run(store, run_id="run_00" + "a" * 24)
        other = await backend.owned_run(store, run_id="run_00" + "b" * 24)

        assert (await other.commit(handled=(mine.handle,))).outcome is GONE
        assert len(await other.messages()) == 2

    backend.run(main)


def test_guards_are_checked_in_order(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        stale = replace(run.lease, epoch=run.lease.epoch - 1)
        forged = replace(run.lease, nonce="0" * 16)

        missing = ("1-1",)
        assert (await run.commit(lease=stale, handled=missing, base=9)).outcome is EPOCH
        assert (await run.commit(lease=forged, handled=missing, base=9)).outcome is EPOCH
        assert (await run.commit(handled=missing, base=9)).outcome is GONE
        assert (await run.commit(base=9)).outcome is SEQUENCE
        assert (await run.commit()).outcome is OK

    backend.run(main)


def test_former_owner_is_fenced(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        other = await backend.view()
        taken = await other.acquire(run.lease.partition, owner="owner", ttl_ms=60_000)
        assert taken is not None

        assert (await run.commit(events=(b"zombie",))).outcome is EPOCH
        assert await store.read_events(run.run_id) == []
        assert (await run.commit(lease=taken, events=(b"e",))).outcome is OK

    backend.run(main)


def test_unknown_run_is_gone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        missing = run.run_id[:-1] + ("0" if run.run_id[-1] != "0" else "1")
        entry = CommitEntry(run_id=missing, handled=(), base=0, events=(b"e",))

        (answer,) = (await store.commit(run.lease, [entry])).answers
        assert answer.outcome is GONE
        assert await store.read_run(missing) is None

    backend.run(main)


def test_refusal_holds_for_later_entries_of_the_run_and_for_no_other(backend: Backend) -> None:
    async def main(store: Store) -> None:
        one = await backend.owned_run(store, run_id="run_01" + "a" * 24)
        two = await backend.owned_run(store, run_id="run_01" + "b" * 24)
        reply = await store.commit(
            two.lease,
            [
                one.entry(base=5, events=(b"refused",)),
                two.entry(events=(b"fine",)),
                one.entry(events=(b"fine alone, but behind a refusal",)),
            ],
        )

        assert [answer.outcome for answer in reply.answers] == [SEQUENCE, OK, SEQUENCE]
        assert await store.read_events(one.run_id) == []
        assert await store.read_events(two.run_id) == [b"fine"]

    backend.run(main)


def test_entries_of_one_run_in_a_group_build_on_each_other(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        answer = await run.commit(messages=(b"1", b"2", b"3"))
        ids = answer.message_ids
        entries = [
            run.entry(handled=(message_id,), base=base, events=(b"e%d" % base,))
            for base, message_id in enumerate(ids)
        ]
        reply = await store.commit(run.lease, entries)

        assert [a.outcome for a in reply.answers] == [OK, OK, OK]
        assert await store.read_events(run.run_id) == [b"e0", b"e1", b"e2"]

    backend.run(main)


def test_group_larger_than_one_call_keeps_order_and_refusals(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        other = await backend.owned_run(store, run_id=run.run_id[:6] + "z" * 24)
        run.lease = other.lease
        answer = await run.commit(messages=(b"m",) * 600)
        refused = other.entry(handled=("1-1",))
        entries = [refused]
        entries += [
            run.entry(handled=(message_id,), base=base, events=(b"%d" % base,))
            for base, message_id in enumerate(answer.message_ids)
        ]
        entries.append(other.entry())
        reply, window = await asyncio.gather(
            store.commit(other.lease, entries), store.window(other.lease, after="", limit=1000)
        )

        outcomes = [a.outcome for a in reply.answers]
        assert outcomes == [GONE, *[OK] * 600, GONE]
        assert await store.read_events(run.run_id) == [b"%d" % base for base in range(600)]
        assert window is not None
        assert [m.id for m in window] == [other.handle]  # it reflects the whole group

    backend.run(main)


def test_window_reflects_commits_called_before_it(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        for _ in range(50):
            handled = run.handle
            answer, window = await asyncio.gather(
                run.commit(messages=(b"m",)), store.window(run.lease, after="", limit=10)
            )
            assert window is not None
            assert [m.id for m in window] == list(answer.message_ids)
            assert handled not in answer.message_ids

    backend.run(main)


def test_window_is_bounded_and_goes_on_behind_an_id(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        answer = await run.commit(messages=tuple(b"%d" % i for i in range(10)))
        first = await store.window(run.lease, after="", limit=4)
        assert first is not None
        rest = await store.window(run.lease, after=first[-1].id, limit=100)
        assert rest is not None

        assert [m.id for m in [*first, *rest]] == list(answer.message_ids)
        assert [m.body for m in first] == [b"0", b"1", b"2", b"3"]
        assert await store.window(run.lease, after=answer.message_ids[-1], limit=1) == []

    backend.run(main)


def test_thousands_of_effects_in_one_entry(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        events = tuple(b"e%d" % i for i in range(10_000))
        timers = tuple((60_000, run.timer(i)) for i in range(3_000))
        answer = await run.commit(events=events, messages=(b"m",) * 10_000, timers=timers)
        assert len(answer.message_ids) == 10_000
        assert await store.depth([run.lease.partition]) == (10_000, 3_000)

        await run.commit(handled=answer.message_ids, drop_timers=tuple(b for _, b in timers))
        assert await store.depth([run.lease.partition]) == (0, 0)
        assert await store.read_events(run.run_id, start=9_998) == list(events[-2:])

    backend.run(main)


def test_binary_values_survive(backend: Backend) -> None:
    async def main(store: Store) -> None:
        value = bytes(range(256)) * 300
        run = await backend.owned_run(store, input=value, fingerprint=value[:32])
        await run.commit(events=(), messages=(value,), turn=value)
        window = await run.messages()
        assert window[0].body == value
        assert (await run.record()).turn == value
        assert (await run.record()).input == value

        await run.commit(events=(value, b""))
        assert await store.read_events(run.run_id) == [value, b""]

    backend.run(main)


def test_entry_of_another_partition_is_refused(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store, run_id="run_02" + "a" * 24)
        entry = CommitEntry(run_id="run_01" + "a" * 24, handled=(), base=0)

        with pytest.raises(InvalidRequestError, match="partition"):
            await store.commit(run.lease, [entry])

    backend.run(main)


def test_value_above_the_limit_is_refused_before_anything_is_written(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        huge = bytes(MAX_VALUE_BYTES + 1)

        with pytest.raises(InvalidRequestError, match="above"):
            await store.commit(run.lease, [run.entry(events=(b"e",)), run.entry(events=(huge,))])
        assert await store.read_events(run.run_id) == []

    backend.run(main)


def test_timer_that_names_another_run_is_refused(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        foreign = Message(MessageKind.TIMER, new_run_id(4), 1).encode()
        for body in (foreign, b"no message"):
            with pytest.raises(InvalidRequestError, match="timer"):
                await store.commit(run.lease, [run.entry(timers=((1, body),))])

    backend.run(main)


def test_empty_group_is_answered(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        reply = await store.commit(run.lease, [])

        assert reply.answers == ()
        assert reply.now_ms <= await store.now_ms()

    backend.run(main)


def test_racing_commits_of_one_message_are_applied_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        other = await backend.view()
        entry = run.entry(events=(b"e",))
        replies = await asyncio.gather(
            *[view.commit(run.lease, [entry]) for view in (store, other) * 10]
        )

        outcomes = [reply.answers[0].outcome for reply in replies]
        assert outcomes.count(OK) == 1
        assert outcomes.count(GONE) == 19
        assert await store.read_events(run.run_id) == [b"e"]

    backend.run(main)
