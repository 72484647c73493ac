"""Effects outlive the run that asked for them, and hold its record until they are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluvial_queue import Store
from fluvial_queue.contract import CommitOutcome, DeleteOutcome, RunStatus

if TYPE_CHECKING:
    from tests.contract.conftest import Backend

RETENTION_MS = 2_000  # of the suite's stores


def test_an_effect_outlives_the_end_of_its_run(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        ended = await run.commit(
            events=(b"e",), messages=(b"m",), effects=(b"x", b"y"), status=RunStatus.COMPLETED
        )

        assert ended.outcome is CommitOutcome.OK
        assert [message.body for message in await run.messages()] == [b"x", b"y"]

    backend.run(main)


def test_a_run_that_has_ended_takes_deletions_alone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        ended = await run.commit(events=(b"e",), effects=(b"x",), status=RunStatus.COMPLETED)
        run.handle = ended.message_ids[-1]

        for refused in (
            await run.commit(events=(b"f",)),
            await run.commit(status=RunStatus.RUNNING),
            await run.commit(effects=(b"z",)),
        ):
            assert refused.outcome is CommitOutcome.GONE
        assert (await run.commit()).outcome is CommitOutcome.OK
        assert await run.messages() == []

    backend.run(main)


def test_the_retention_begins_when_the_last_effect_is_done(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        ended = await run.commit(events=(b"e",), effects=(b"x",), status=RunStatus.COMPLETED)
        ended_ms = await store.now_ms()
        await backend.reach(store, ended_ms + RETENTION_MS + 100)
        assert (await run.record()).status is RunStatus.COMPLETED
        assert await store.delete_run(run.run_id) is DeleteOutcome.OPEN

        lease = await store.acquire(run.lease.partition, owner="owner", ttl_ms=60_000)
        assert lease is not None
        run.handle = ended.message_ids[-1]
        assert (await run.commit(lease=lease)).outcome is CommitOutcome.OK
        done_ms = await store.now_ms()
        await backend.reach(store, done_ms + RETENTION_MS + 100)
        assert await store.read_run(run.run_id) is None

    backend.run(main)


def test_only_a_run_that_has_ended_is_deleted_and_then_at_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        assert await store.delete_run(run.run_id) is DeleteOutcome.OPEN
        await run.commit(events=(b"e",), status=RunStatus.FAILED)

        assert await store.delete_run(run.run_id) is DeleteOutcome.DELETED
        assert await store.read_run(run.run_id) is None
        assert await store.read_events(run.run_id) == []
        assert await store.delete_run(run.run_id) is DeleteOutcome.UNKNOWN

    backend.run(main)
