"""What a start may ask for beside the run: a delay, a deadline, a retention, tags, a log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluvial.ids import partition_of
from fluvial_queue import Store
from fluvial_queue.contract import Bell, CommitOutcome, RunQuery, RunStatus, StartOutcome
from fluvial_queue.messages import MessageKind, decode_message

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


def test_a_delayed_start_is_a_timer_until_its_time(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = backend.start_run(delay_ms=150)
        partition = partition_of(run.run_id)
        before = await store.now_ms()
        assert await store.start(run) is StartOutcome.ACCEPTED
        lease = await store.acquire(partition, owner="o", ttl_ms=60_000)
        assert lease is not None
        assert await store.window(lease, after="", limit=10) == []
        (pulse,) = await store.renew([lease], ttl_ms=60_000)
        assert pulse.next_timer_ms is not None
        assert before + 150 <= pulse.next_timer_ms

        await backend.reach(store, pulse.next_timer_ms)
        fired = await store.fire_timers(lease, limit=10)
        assert fired is not None
        assert [decode_message(m.body).kind for m in fired.messages] == [MessageKind.START]

    backend.run(main)


def test_a_delayed_start_rings_with_the_time_it_is_due(backend: Backend) -> None:
    async def main(store: Store) -> None:
        bells = store.bells()
        assert (await anext(bells)).kind == "lost"
        run = backend.start_run(delay_ms=60_000)
        before = await store.now_ms()
        await store.start(run)
        async with asyncio.timeout(10):
            bell = await anext(bells)

        assert bell == Bell("timer", partition=partition_of(run.run_id), due_ms=bell.due_ms)
        assert before + 60_000 <= bell.due_ms <= await store.now_ms() + 60_000
        await bells.aclose()  # type: ignore[attr-defined] # both are generators

    backend.run(main)


def test_a_deadline_becomes_a_request_to_cancel(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store, deadline_ms=100)
        (pulse,) = await store.renew([run.lease], ttl_ms=60_000)
        assert pulse.next_timer_ms is not None
        await backend.reach(store, pulse.next_timer_ms)
        fired = await store.fire_timers(run.lease, limit=10)

        assert fired is not None
        (message,) = map(decode_message, [m.body for m in fired.messages])
        assert (message.kind, message.meta) == (MessageKind.CANCEL, {"reason": "deadline"})

    backend.run(main)


def test_the_end_of_a_run_drops_its_deadline(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store, deadline_ms=60_000)
        assert await store.depth([run.lease.partition]) == (1, 1)
        await run.commit(events=(b"e",), status=RunStatus.COMPLETED)

        assert await store.depth([run.lease.partition]) == (0, 0)

    backend.run(main)


def test_a_run_may_have_a_retention_of_its_own(backend: Backend) -> None:
    async def main(store: Store) -> None:
        short = await backend.owned_run(store, retention_ms=200)
        await short.commit(events=(b"e",), status=RunStatus.COMPLETED)
        await backend.reach(store, await store.now_ms() + 250)

        assert await store.read_run(short.run_id) is None

    backend.run(main)


def test_runs_are_found_by_tags_family_and_time(backend: Backend) -> None:
    async def main(store: Store) -> None:
        red = await backend.owned_run(store, tags={"colour": "red", "size": "s"})
        family = {"parent": red.run_id, "root": red.run_id}
        child = backend.start_run(tags={"colour": "blue"}, meta=family)
        grandchild = backend.start_run(meta={"parent": child.run_id, "root": red.run_id})
        await store.start(child)
        await store.start(grandchild)

        async def found(**wanted: object) -> set[str]:
            page = await store.query_runs(RunQuery(**wanted))  # type: ignore[arg-type] # a test's
            return {run.run_id for run in page.runs}

        assert await found(tags={"colour": "red"}) == {red.run_id}
        assert await found(tags={"colour": "red", "size": "m"}) == set()
        assert await found(parent=red.run_id) == {child.run_id}
        assert await found(root=red.run_id) == {red.run_id, child.run_id, grandchild.run_id}
        assert await found(root=child.run_id) == set()
        created_ms = (await red.record()).created_ms
        assert await found(until_ms=created_ms) == set()
        assert red.run_id in await found(until_ms=created_ms + 1)

        assert (await red.commit(tags={"colour": "green"})).outcome is CommitOutcome.OK
        assert await found(tags={"colour": "green"}) == {red.run_id}
        assert (await red.record()).tags == {"colour": "green"}

    backend.run(main)


def test_a_run_may_begin_with_a_log(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store, log=(b"a", b"b"), turn=b"t", input=b"")
        record = await run.record()

        assert (record.events, record.turn, record.status) == (2, b"t", RunStatus.PENDING)
        assert await store.read_events(run.run_id) == [b"a", b"b"]
        run.length = 2
        assert (await run.commit(events=(b"c",))).outcome is CommitOutcome.OK

    backend.run(main)


def test_the_reason_of_a_pause_stands_on_the_record(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(messages=(b"m",), events=(b"e",), status=RunStatus.PAUSED, reason="poison")
        assert (await run.record()).reason == "poison"

        await run.commit(events=(b"e",), status=RunStatus.RUNNING, reason="")
        assert (await run.record()).reason == ""

    backend.run(main)
