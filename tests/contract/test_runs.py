"""Starting, ending, listing and counting runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.ids import keyed_run_id, new_run_id, partition_of
from fluvial_queue import Store
from fluvial_queue.contract import (
    CommitOutcome,
    RunQuery,
    RunRecord,
    RunStatus,
    SendOutcome,
    StartOutcome,
)
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message, MessageKind, decode_message

if TYPE_CHECKING:
    from tests.contract.conftest import Backend

ENDS = [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TERMINATED]


def test_start_creates_the_run_with_its_message(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = backend.start_run(key="k", fingerprint=b"f", meta={"by": "api", "tags": ["x"]})
        before = await store.now_ms()
        assert await store.start(run) is StartOutcome.ACCEPTED

        record = await store.read_run(run.run_id)
        assert record is not None
        assert before <= record.created_ms <= await store.now_ms()
        assert record == RunRecord(
            run_id=run.run_id,
            app="shop",
            workflow="fulfil",
            deployment="dpl_1",
            status=RunStatus.PENDING,
            created_ms=record.created_ms,
            finished_ms=None,
            key="k",
            fingerprint=b"f",
            input=b"sealed",
            turn=b"",
            events=0,
            meta={"by": "api", "tags": ["x"]},
        )
        lease = await store.acquire(partition_of(run.run_id), owner="o", ttl_ms=60_000)
        assert lease is not None
        window = await store.window(lease, after="", limit=10)
        assert window is not None
        assert [m.epoch for m in window] == [0]
        assert decode_message(window[0].body) == Message(MessageKind.START, run.run_id)

    backend.run(main)


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [
        (b"f", b"f", StartOutcome.DUPLICATE),
        (b"f", b"", StartOutcome.DUPLICATE),
        (b"", b"f", StartOutcome.DUPLICATE),
        (b"", b"", StartOutcome.DUPLICATE),
        (b"f", b"g", StartOutcome.CONFLICT),
    ],
)
def test_second_start_of_a_run_changes_nothing(
    backend: Backend, first: bytes, second: bytes, outcome: StartOutcome
) -> None:
    async def main(store: Store) -> None:
        run_id = keyed_run_id("shop", "fulfil", "k", backend.partitions)
        run = await backend.owned_run(store, run_id=run_id, fingerprint=first)
        before = await run.record()
        again = backend.start_run(run_id, fingerprint=second, input=b"other", app="other")

        assert await store.start(again) is outcome
        assert await run.record() == before
        assert len(await run.messages()) == 1

    backend.run(main)


def test_racing_starts_of_one_key_are_accepted_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run_id = keyed_run_id("shop", "fulfil", "k", backend.partitions)
        other = await backend.view()
        outcomes = await asyncio.gather(
            *[view.start(backend.start_run(run_id)) for view in (store, other) * 10]
        )

        assert outcomes.count(StartOutcome.ACCEPTED) == 1
        assert outcomes.count(StartOutcome.DUPLICATE) == 19
        assert await store.depth([partition_of(run_id)]) == (1, 0)

    backend.run(main)


def test_the_oldest_message_is_as_old_as_its_run(backend: Backend) -> None:
    async def main(store: Store) -> None:
        everything = range(backend.partitions)
        assert await store.oldest_message_ms(everything) is None
        before = await store.now_ms()
        run_id = keyed_run_id("shop", "fulfil", "age", backend.partitions)
        await store.start(backend.start_run(run_id))
        after = await store.now_ms()

        oldest = await store.oldest_message_ms(everything)
        assert oldest is not None
        assert before <= oldest <= after
        assert await store.oldest_message_ms([partition_of(run_id) ^ 1]) is None

    backend.run(main)


def test_unknown_run_reads_as_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run_id = new_run_id(backend.partitions)

        assert await store.read_run(run_id) is None
        assert await store.read_events(run_id) == []
        assert await store.open_hooks(run_id) == {}

    backend.run(main)


@pytest.mark.parametrize("run_id", ["", "run_1", "dpl_" + "0" * 26, "run_zz" + "0" * 24])
def test_what_is_no_run_id_is_refused(backend: Backend, run_id: str) -> None:
    async def main(store: Store) -> None:
        with pytest.raises(InvalidRequestError):
            await store.read_run(run_id)
        with pytest.raises(InvalidRequestError):
            await store.send(run_id, b"body")

    backend.run(main)


@pytest.mark.parametrize("status", ENDS)
def test_end_of_a_run_removes_everything_that_it_owns(backend: Backend, status: RunStatus) -> None:
    async def main(store: Store) -> None:
        neighbour = await backend.owned_run(store, run_id="run_02" + "n" * 24)
        run = await backend.owned_run(store, run_id="run_02" + "r" * 24)
        await run.commit(
            events=(b"e",),
            messages=(b"1", b"2", b"3"),
            timers=((0, run.timer(1)), (0, run.timer(2)), (60_000, run.timer(3))),
            open_hooks=(("a", OpenHook(1, 0)), ("b", OpenHook(2, 0))),
            status=RunStatus.RUNNING,
        )
        await store.send(run.run_id, b"payload", token="a", resume_id="r")
        fired = await store.fire_timers(run.lease, limit=1)
        assert fired is not None
        before = await store.now_ms()
        answer = await run.commit(events=(b"end",), status=status)

        assert answer.outcome is CommitOutcome.OK
        assert await store.depth([run.lease.partition]) == (1, 0)
        assert [m.id for m in await run.messages()] == [neighbour.handle]
        assert await store.open_hooks(run.run_id) == {}
        record = await run.record()
        assert (record.status, record.events) == (status, 2)
        assert record.finished_ms is not None
        assert before <= record.finished_ms <= await store.now_ms()
        assert await store.read_events(run.run_id) == [b"e", b"end"]

    backend.run(main)


def test_nothing_follows_the_end(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        answer = await run.commit(messages=(b"1", b"2"), open_hooks=(("token", OpenHook(1, 0)),))
        late = answer.message_ids[1]
        await run.commit(events=(b"end",), status=RunStatus.TERMINATED)

        assert (await run.commit(handled=(late,), events=(b"x",))).outcome is CommitOutcome.GONE
        assert (await run.commit(handled=(), events=(b"x",))).outcome is CommitOutcome.GONE
        assert await store.send(run.run_id, b"m") is SendOutcome.CLOSED
        assert await store.send(run.run_id, b"m", token="token") is SendOutcome.CLOSED
        assert await store.read_events(run.run_id) == [b"end"]
        assert await store.depth([run.lease.partition]) == (0, 0)

    backend.run(main)


def test_ended_run_expires_with_its_log_and_its_key_is_free_again(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run_id = keyed_run_id("shop", "fulfil", "k", backend.partitions)
        run = await backend.owned_run(store, run_id=run_id, fingerprint=b"f")
        await run.commit(events=(b"end",), status=RunStatus.COMPLETED)
        finished_ms = (await run.record()).finished_ms
        assert finished_ms is not None
        again = backend.start_run(run_id, fingerprint=b"g")
        assert await store.start(again) is StartOutcome.CONFLICT

        await backend.reach(store, finished_ms + 2001)
        assert await store.read_run(run_id) is None
        assert await store.read_events(run_id) == []
        assert (await store.query_runs(RunQuery())).runs == ()
        assert await store.start(again) is StartOutcome.ACCEPTED
        assert [r.run_id for r in (await store.query_runs(RunQuery())).runs] == [run_id]

    backend.run(main)


def test_events_are_read_in_pages(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(events=tuple(b"%d" % i for i in range(10)))

        assert await store.read_events(run.run_id, start=3, limit=2) == [b"3", b"4"]
        assert await store.read_events(run.run_id, start=8, limit=100) == [b"8", b"9"]
        assert await store.read_events(run.run_id, start=10) == []

    backend.run(main)


def test_open_runs_are_counted_by_app_and_status(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert await store.count_runs() == {}
        for _ in range(3):
            await store.start(backend.start_run(app="a"))
        run = await backend.owned_run(store, app="b")
        await run.commit(events=(b"e",), messages=(b"m",), status=RunStatus.RUNNING)
        await run.commit(messages=(b"m",), status=RunStatus.RUNNING)
        assert await store.count_runs() == {
            ("a", RunStatus.PENDING): 3,
            ("b", RunStatus.RUNNING): 1,
        }

        await run.commit(status=RunStatus.PAUSED, messages=(b"m",))
        assert (await store.count_runs())["b", RunStatus.PAUSED] == 1
        await run.commit(status=RunStatus.FAILED)
        assert await store.count_runs() == {("a", RunStatus.PENDING): 3}

    backend.run(main)


async def pages(store: Store, **query: object) -> list[list[str]]:
    """The ids on all pages of a query."""
    found: list[list[str]] = []
    cursor: str | None = None
    while True:
        page = await store.query_runs(RunQuery(**query, cursor=cursor))  # type: ignore[arg-type]
        found.append([run.run_id for run in page.runs])
        cursor = page.cursor
        if cursor is None:
            return found


def test_query_lists_newest_first_across_partitions(backend: Backend) -> None:
    async def main(store: Store) -> None:
        started: list[str] = []
        for _ in range(12):
            run = backend.start_run()
            await store.start(run)
            started.append(run.run_id)
            await backend.reach(store, await store.now_ms() + 1)

        assert await pages(store) == [started[::-1]]
        assert [i for page in await pages(store, limit=5) for i in page] == started[::-1]
        assert await pages(store, limit=12) == [started[::-1]]

    backend.run(main)


def test_pages_are_stable_while_runs_are_added(backend: Backend) -> None:
    async def main(store: Store) -> None:
        old = {(run := backend.start_run()).run_id: await store.start(run) for _ in range(30)}
        first = await store.query_runs(RunQuery(limit=10))
        await backend.reach(store, await store.now_ms() + 2)
        for _ in range(10):
            await store.start(backend.start_run())
        rest = await store.query_runs(RunQuery(limit=50, cursor=first.cursor))

        ids = [run.run_id for run in (*first.runs, *rest.runs)]
        assert sorted(ids) == sorted(old)

    backend.run(main)


def test_hundreds_of_runs_of_one_moment_are_all_listed(backend: Backend) -> None:
    async def main(store: Store) -> None:
        runs = [backend.start_run("run_01" + f"{i:024d}") for i in range(450)]
        await asyncio.gather(*[store.start(run) for run in runs])

        found = [run_id for page in await pages(store, limit=60) for run_id in page]
        assert sorted(found) == [run.run_id for run in runs]
        assert len(found) == len(runs)

    backend.run(main)


def test_query_filters_by_app_workflow_status_and_time(backend: Backend) -> None:
    async def main(store: Store) -> None:
        a = backend.start_run(app="a", workflow="x")
        b = backend.start_run(app="b", workflow="x")
        await store.start(a)
        await store.start(b)
        await backend.reach(store, await store.now_ms() + 2)
        later_ms = await store.now_ms()
        c = await backend.owned_run(store, app="a", workflow="y")
        await c.commit(events=(b"e",), status=RunStatus.RUNNING)

        assert await pages(store, app="a") == [[c.run_id, a.run_id]]
        assert {*(await pages(store, workflow="x"))[0]} == {a.run_id, b.run_id}
        assert await pages(store, app="a", workflow="x") == [[a.run_id]]
        running = frozenset({RunStatus.RUNNING, RunStatus.FAILED})
        assert await pages(store, statuses=running) == [[c.run_id]]
        assert await pages(store, since_ms=later_ms) == [[c.run_id]]
        assert await pages(store, app="nobody") == [[]]

    backend.run(main)


@pytest.mark.parametrize("cursor", ["", "x", "12", "-run_1", "\uff11-run_1"])
def test_wrong_cursor_is_refused(backend: Backend, cursor: str) -> None:
    async def main(store: Store) -> None:
        with pytest.raises(InvalidRequestError, match="cursor"):
            await store.query_runs(RunQuery(cursor=cursor))

    backend.run(main)
