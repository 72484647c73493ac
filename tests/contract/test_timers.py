"""Timers: never early, moved atomically, dropped for good."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluvial_queue import Store
from fluvial_queue.contract import CommitOutcome, StoredMessage

if TYPE_CHECKING:
    from tests.contract.conftest import Backend, OwnedRun


async def fire(run: OwnedRun, limit: int = 100) -> tuple[StoredMessage, ...]:
    """Fire the partition's due timers."""
    fired = await run.store.fire_timers(run.lease, limit=limit)
    assert fired is not None
    return fired.messages


def test_timer_is_never_early_and_fires_when_due(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        reply = await store.commit(run.lease, [run.entry(timers=((80, run.timer(1)),))])
        due_ms = reply.now_ms + 80

        for moment_ms in (due_ms - 79, due_ms - 40, due_ms - 1):
            await backend.reach(store, moment_ms)
            fired = await store.fire_timers(run.lease, limit=10)
            assert fired is not None
            assert bool(fired.messages) == (fired.now_ms >= due_ms)
            if fired.messages:  # a slow machine overslept: the rest is another test's
                return
            assert fired.next_timer_ms == due_ms
        await backend.reach(store, due_ms)
        fired = await store.fire_timers(run.lease, limit=10)
        assert fired is not None
        assert [(m.epoch, m.body) for m in fired.messages] == [(run.lease.epoch, run.timer(1))]
        assert fired.next_timer_ms is None

    backend.run(main)


def test_fired_timer_is_an_outstanding_message_of_its_run(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=((0, run.timer(1)),))
        (message,) = await fire(run)

        assert await run.messages() == [message]
        assert await store.depth([run.lease.partition]) == (1, 0)
        assert (await run.commit(handled=(message.id,))).outcome is CommitOutcome.OK
        assert await run.messages() == []

    backend.run(main)


def test_timer_fires_once_though_two_views_race(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=tuple((0, run.timer(i)) for i in range(20)))
        other = await backend.view()
        ids: list[str] = []
        while (await store.depth([run.lease.partition]))[1]:
            fired = await asyncio.gather(
                *[view.fire_timers(run.lease, limit=7) for view in (store, other) * 5]
            )
            ids += [message.id for each in fired if each is not None for message in each.messages]

        assert len(ids) == len(set(ids)) == 20
        assert len(await run.messages()) == 20

    backend.run(main)


def test_limit_leaves_the_rest_for_the_next_call(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=tuple((0, run.timer(i)) for i in range(5)))

        first = await store.fire_timers(run.lease, limit=3)
        assert first is not None
        assert first.next_timer_ms is not None
        assert (len(first.messages), len(await fire(run)), len(await fire(run))) == (3, 2, 0)

    backend.run(main)


def test_dropped_timer_never_fires(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=((0, run.timer(1)), (0, run.timer(2))), messages=(b"m",))
        await run.commit(drop_timers=(run.timer(1),))

        assert [message.body for message in await fire(run)] == [run.timer(2)]

    backend.run(main)


def test_entry_that_drops_and_sets_a_timer_sets_it_anew(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=((0, run.timer(1)),), messages=(b"m",))
        await run.commit(drop_timers=(run.timer(1),), timers=((60_000, run.timer(1)),))

        assert await fire(run) == ()
        assert await store.depth([run.lease.partition]) == (0, 1)

    backend.run(main)


def test_refused_entry_leaves_timers_alone(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=((0, run.timer(1)),), messages=(b"m",))
        answer = await run.commit(base=9, drop_timers=(run.timer(1),), timers=((0, run.timer(2)),))

        assert answer.outcome is CommitOutcome.SEQUENCE
        assert [message.body for message in await fire(run)] == [run.timer(1)]

    backend.run(main)


def test_former_owner_fires_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(timers=((0, run.timer(1)),))
        await store.acquire(run.lease.partition, owner="owner", ttl_ms=60_000)

        assert await store.fire_timers(run.lease, limit=10) is None
        assert await store.depth([run.lease.partition]) == (0, 1)

    backend.run(main)
