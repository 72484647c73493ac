"""What the Redis store does when its server is killed, silent, full, or forgets its scripts."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fluvial.ids import new_run_id
from fluvial_queue import Store, open_store
from fluvial_queue.contract import (
    CommitEntry,
    CommitOutcome,
    Durability,
    Lease,
    OutcomeUnknownError,
    RunStatus,
    SendOutcome,
    StartOutcome,
    StartRun,
    StoreUnavailableError,
)
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message, MessageKind

if TYPE_CHECKING:
    from tests.integration.queue.conftest import Lab

DEFINITE = {CommitOutcome.OK, CommitOutcome.GONE}


async def commit_until_definite(store: Store, lease: Lease, entry: CommitEntry) -> str:
    """Repeat a commit unchanged until its answer is definite; say what came before that."""
    seen = ""
    while True:
        try:
            reply = await store.commit(lease, [entry])
        except OutcomeUnknownError:
            seen = "unknown"
        except StoreUnavailableError:
            seen = seen or "unavailable"
        else:
            assert reply.answers[0].outcome in DEFINITE
            if reply.answers[0].outcome is CommitOutcome.GONE:
                assert seen == "unknown"  # only an applied commit can be gone
            return seen


def test_no_commit_is_lost_or_applied_twice_when_the_server_is_killed(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("disk")
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        lease = await lab.lease(store, 0)
        unknown = 0
        for _ in range(3):
            ids = [new_run_id(1) for _ in range(150)]
            entries = [await lab.first_entry(store, lease, run_id) for run_id in ids]
            acknowledged = asyncio.Event()

            async def commit(entry: CommitEntry, acknowledged: asyncio.Event) -> str:
                seen = await commit_until_definite(store, lease, entry)
                acknowledged.set()
                return seen

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(commit(e, acknowledged)) for e in entries[:50]]
                await acknowledged.wait()
                tasks += [group.create_task(commit(e, acknowledged)) for e in entries[50:]]
                await asyncio.sleep(0)  # let them be sent
                await asyncio.sleep(0)
                await lab.kill(server)
                await server.start()

            unknown += sum(task.result() == "unknown" for task in tasks)
            for run_id in ids:
                assert await store.read_events(run_id) == [run_id.encode()]
        assert unknown > 0  # else the kills hit nothing
        assert await store.depth([0]) == (0, 0)

    lab.run(main)


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_acknowledged_commits_survive_the_kill_of_the_server(
    lab: Lab, durability: Durability
) -> None:
    async def main() -> None:
        server = await lab.server(durability)
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        assert store.durability == durability
        lease = await lab.lease(store, 0)
        entry = await lab.first_entry(store, lease, new_run_id(1))
        committed = 0
        while committed < 200:
            reply = await store.commit(lease, [entry])
            assert reply.answers[0].outcome is CommitOutcome.OK
            committed += 1
            entry = CommitEntry(
                run_id=entry.run_id, handled=(), base=committed, events=(b"%d" % committed,)
            )
        await lab.kill(server)
        await server.start()

        events = await lab.answered(lambda: store.read_events(entry.run_id))
        assert len(events) == committed
        assert (await store.renew([lease], ttl_ms=1000))[0].held

    lab.run(main)


def test_calls_fail_while_the_server_is_away_and_work_again_after(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("process")
        store = await lab.opened(open_store(server.url))
        await store.put_record("app", "a", {"v": 1})
        await lab.kill(server)
        with pytest.raises(StoreUnavailableError):
            await store.get_record("app", "a")
        await server.start()

        record = await lab.answered(lambda: store.get_record("app", "a"))
        assert record is not None
        assert record.value == {"v": 1}

    lab.run(main)


def test_listener_hears_lost_when_the_server_comes_back(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("process")
        store = await lab.opened(open_store(server.url))
        bells = store.bells()
        assert (await anext(bells)).kind == "lost"
        await lab.kill(server)
        await server.start()

        async with asyncio.timeout(10):
            assert (await anext(bells)).kind == "lost"

    lab.run(main)


def test_silent_server_is_an_unknown_outcome_within_the_deadline(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("process")
        link = await lab.link(server.url, reply_seconds=0.2)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            write = link.call(("SET", "k", "v"), writes=True)
            read = link.call(("GET", "k"), writes=False)
            with pytest.raises(OutcomeUnknownError):
                await write
            with pytest.raises(StoreUnavailableError):
                await read
        finally:
            os.kill(server.pid, signal.SIGCONT)

        echo = await lab.answered(lambda: link.call(("ECHO", "again"), writes=False))
        assert echo == b"again"

    lab.run(main)


def test_cancelled_calls_never_give_their_reply_to_another(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(server.url))
        generator = random.Random(7)
        for i in range(50):
            await store.put_record("setting", str(i), {"i": i})

        async def read(i: int) -> None:
            record = await store.get_record("setting", str(i))
            assert record is not None
            assert record.value == {"i": i}

        cancelled = finished = 0
        for batch in range(100):
            tasks = [asyncio.ensure_future(read(generator.randrange(50))) for _ in range(60)]
            for task in tasks:
                if generator.random() < 0.02:
                    await asyncio.sleep(0)
                if generator.random() < 0.5:
                    task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            cancelled += sum(isinstance(o, asyncio.CancelledError) for o in outcomes)
            finished += outcomes.count(None)
            assert cancelled + finished == 60 * (batch + 1)
        assert cancelled > 2000
        assert finished > 2000

    lab.run(main)


def test_cancelled_commit_goes_on(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        lease = await lab.lease(store, 0)
        for _ in range(20):
            entry = await lab.first_entry(store, lease, new_run_id(1))
            task = asyncio.ensure_future(store.commit(lease, [entry]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

            (answer,) = (await store.commit(lease, [entry])).answers
            assert answer.outcome is CommitOutcome.GONE

    lab.run(main)


def test_full_store_refuses_starts_and_still_drains(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory", max_memory_bytes=8 * 1024 * 1024)
        store = await lab.opened(open_store(f"{server.url}&partitions=1&retention=1"))
        lease = await lab.lease(store, 0)

        def run(input_bytes: int = 100) -> StartRun:
            input_ = bytes(input_bytes)
            return StartRun(
                run_id=new_run_id(1), app="a", workflow="w", deployment="d", input=input_
            )

        started: list[str] = []

        async def fill(input_bytes: int) -> None:
            while True:
                new = run(input_bytes)
                assert await store.start(new) is StartOutcome.ACCEPTED
                started.append(new.run_id)

        for input_bytes in (100_000, 1_000):
            with pytest.raises(StoreUnavailableError, match="full"):
                await fill(input_bytes)
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.send(started[0], bytes(100_000))
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.put_record("app", "a", {"value": bytes(100_000)})
        assert (await store.renew([lease], ttl_ms=600_000))[0].held

        window = await store.window(lease, after="", limit=1000)
        assert window is not None
        assert len(window) == len(started)
        for message, run_id in zip(window, started, strict=True):
            entry = CommitEntry(
                run_id=run_id,
                handled=(message.id,),
                base=0,
                events=(b"started",),
                messages=(b"next",),
                status=RunStatus.RUNNING,
            )
            (answer,) = (await store.commit(lease, [entry])).answers
            assert answer.outcome is CommitOutcome.OK
        assert await store.start(run()) is StartOutcome.ACCEPTED
        assert await store.send(started[0], b"payload") is SendOutcome.ACCEPTED

    lab.run(main)


def test_scripts_are_sent_again_when_the_server_has_forgotten_them(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        lease = await lab.lease(store, 0)
        for _ in range(20):
            entry = await lab.first_entry(store, lease, new_run_id(1))
            await lab.command(server.url, "SCRIPT", "FLUSH")
            await store.window(lease, after="", limit=10)  # this script is known again
            reply, window = await asyncio.gather(
                store.commit(lease, [entry]), store.window(lease, after="", limit=10)
            )
            assert reply.answers[0].outcome is CommitOutcome.OK
            assert window == []  # also a commit that had to be sent again comes first

    lab.run(main)


def test_expired_runs_and_void_claims_are_swept(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        url = f"{server.url}&partitions=1&retention=1"
        store = await lab.opened(open_store(url))
        lease = await lab.lease(store, 0)
        kept = await lab.first_entry(store, lease, new_run_id(1))
        await store.claim_token("a", "kept", kept.run_id)
        for i in range(5):
            entry = await lab.first_entry(store, lease, new_run_id(1))
            await store.claim_token("a", f"t{i}", entry.run_id)
            ended = CommitEntry(
                run_id=entry.run_id, handled=entry.handled, base=0, status=RunStatus.COMPLETED
            )
            await store.commit(lease, [ended])

        async with asyncio.timeout(15):
            while await lab.command(url, "ZCARD", "{fv:p000}:index") != 1:
                expired = asyncio.Event()
                asyncio.get_running_loop().call_later(0.3, expired.set)
                await expired.wait()
                await store.renew([lease], ttl_ms=600_000)
        assert await lab.command(url, "HKEYS", "{fv:p000}:claims") == [b"a\0kept"]

    lab.run(main)


def test_ended_run_keeps_only_its_record_and_its_log_and_both_expire(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        lease = await lab.lease(store, 0)
        entry = await lab.first_entry(store, lease, new_run_id(1))
        opened = replace(entry, messages=(b"m",), open_hooks=(("t", OpenHook(1, 0)),))
        (answer,) = (await store.commit(lease, [opened])).answers
        await store.send(entry.run_id, b"p", token="t", resume_id="r")
        pattern = f"*{entry.run_id}"
        assert len(await lab.command(server.url, "KEYS", pattern)) == 4
        ended = CommitEntry(
            run_id=entry.run_id, handled=answer.message_ids, base=1, status=RunStatus.FAILED
        )
        await store.commit(lease, [ended])

        keys = await lab.command(server.url, "KEYS", pattern)
        assert sorted(keys) == [
            b"{fv:p000}:log:" + entry.run_id.encode(),
            b"{fv:p000}:run:" + entry.run_id.encode(),
        ]
        for key in keys:
            assert 0 < await lab.command(server.url, "TTL", key.decode()) <= 7 * 24 * 3600
        fields = await lab.command(server.url, "HKEYS", keys[0].decode().replace(":log:", ":run:"))
        assert not [field for field in fields if field[:1] in b"#@"]

    lab.run(main)


def test_timer_that_is_set_anew_while_it_is_moved_does_not_fire_early(lab: Lab) -> None:
    async def main() -> None:
        server = await lab.server("memory")
        store = await lab.opened(open_store(f"{server.url}&partitions=1"))
        lease = await lab.lease(store, 0)
        entry = await lab.first_entry(store, lease, new_run_id(1))
        body = Message(MessageKind.TIMER, entry.run_id, 1).encode()
        due = replace(entry, messages=(b"m",), timers=((0, body),))
        (answer,) = (await store.commit(lease, [due])).answers
        later = CommitEntry(
            run_id=entry.run_id, handled=answer.message_ids, base=1, timers=((600_000, body),)
        )

        # The commit reaches the server between the two halves of the move.
        fired, _ = await asyncio.gather(
            store.fire_timers(lease, limit=10), store.commit(lease, [later])
        )
        assert fired is not None
        assert fired.messages == ()
        assert await store.depth([0]) == (0, 1)

    lab.run(main)
