"""Leases: one owner per partition, fenced by (epoch, nonce) and the store's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_queue import Store
from fluvial_queue.contract import CommitOutcome

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


def test_free_partition_is_acquired_with_epoch_one(backend: Backend) -> None:
    async def main(store: Store) -> None:
        lease = await store.acquire(1, owner="a", ttl_ms=1000)

        assert lease is not None
        assert (lease.partition, lease.epoch) == (1, 1)

    backend.run(main)


def test_held_partition_is_refused_to_another_owner(backend: Backend) -> None:
    async def main(store: Store) -> None:
        await store.acquire(1, owner="a", ttl_ms=60_000)

        other = await backend.view()
        assert await other.acquire(1, owner="b", ttl_ms=60_000) is None
        assert await other.acquire(2, owner="b", ttl_ms=60_000) is not None

    backend.run(main)


def test_same_owner_takes_its_partition_back_and_fences_its_former_self(backend: Backend) -> None:
    async def main(store: Store) -> None:
        first = await store.acquire(1, owner="a", ttl_ms=60_000)
        second = await store.acquire(1, owner="a", ttl_ms=60_000)

        assert first is not None
        assert second is not None
        assert second.epoch == first.epoch + 1
        assert await store.window(first, after="", limit=1) is None
        assert await store.window(second, after="", limit=1) == []

    backend.run(main)


def test_racing_owners_get_one_lease(backend: Backend) -> None:
    async def main(store: Store) -> None:
        views = [store, *[await backend.view() for _ in range(4)]]
        leases = await asyncio.gather(
            *[view.acquire(0, owner=f"o{i}", ttl_ms=60_000) for i, view in enumerate(views)]
        )

        assert sum(lease is not None for lease in leases) == 1

    backend.run(main)


def test_expired_lease_is_stolen_with_the_next_epoch(backend: Backend) -> None:
    async def main(store: Store) -> None:
        old = await store.acquire(1, owner="a", ttl_ms=30)
        assert old is not None
        await backend.reach(store, await store.now_ms() + 31)

        new = await store.acquire(1, owner="b", ttl_ms=60_000)
        assert new is not None
        assert new.epoch == old.epoch + 1
        assert not (await store.renew([old], ttl_ms=1000))[0].held

    backend.run(main)


def test_expired_lease_is_not_current_though_nobody_took_it(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        (pulse,) = await store.renew([run.lease], ttl_ms=30)
        await backend.reach(store, await store.now_ms() + 31)

        assert pulse.held
        assert await store.window(run.lease, after="", limit=1) is None
        assert await store.fire_timers(run.lease, limit=1) is None
        assert not (await store.renew([run.lease], ttl_ms=1000))[0].held
        assert (await run.commit()).outcome is CommitOutcome.EPOCH

    backend.run(main)


def test_renewal_prolongs_the_lease(backend: Backend) -> None:
    async def main(store: Store) -> None:
        lease = await store.acquire(1, owner="a", ttl_ms=30)
        assert lease is not None
        assert (await store.renew([lease], ttl_ms=60_000))[0].held
        await backend.reach(store, await store.now_ms() + 31)

        assert await store.acquire(1, owner="b", ttl_ms=1000) is None

    backend.run(main)


def test_renewal_answers_each_lease(backend: Backend) -> None:
    async def main(store: Store) -> None:
        stale = await store.acquire(0, owner="a", ttl_ms=60_000)
        held = await store.acquire(1, owner="a", ttl_ms=60_000)
        await store.acquire(0, owner="a", ttl_ms=60_000)
        assert stale is not None
        assert held is not None

        pulses = await store.renew([stale, held, replace(held, nonce="other")], ttl_ms=60_000)
        assert [pulse.held for pulse in pulses] == [False, True, False]

    backend.run(main)


def test_pulse_names_next_timer_and_newest_message(backend: Backend) -> None:
    async def main(store: Store) -> None:
        empty = await store.acquire(0, owner="o", ttl_ms=60_000)
        assert empty is not None
        (pulse,) = await store.renew([empty], ttl_ms=60_000)
        assert (pulse.next_timer_ms, pulse.last_message_id) == (None, "")

        run = await backend.owned_run(store, run_id="run_01" + "a" * 24)
        entry = run.entry(messages=(b"m",), timers=((5000, run.timer(1)), (9000, run.timer(2))))
        reply = await store.commit(run.lease, [entry])
        newest = reply.answers[0].message_ids[0]
        run.handle = newest
        await run.commit()  # the newest message ever, not the newest that is left

        (pulse,) = await store.renew([run.lease], ttl_ms=60_000)
        assert pulse.next_timer_ms == reply.now_ms + 5000
        assert pulse.last_message_id == newest

    backend.run(main)


def test_released_partition_is_free_at_once_and_epochs_go_on(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await store.release(run.lease)

        assert (await run.commit()).outcome is CommitOutcome.EPOCH
        lease = await store.acquire(run.lease.partition, owner="b", ttl_ms=1000)
        assert lease is not None
        assert lease.epoch == run.lease.epoch + 1

    backend.run(main)


def test_the_owner_of_a_partition_is_known_while_its_lease_lasts(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert await store.lease_owner(1) is None
        lease = await store.acquire(1, owner="a", ttl_ms=60_000)
        assert lease is not None
        other = await backend.view()
        assert await other.lease_owner(1) == "a"
        await store.release(lease)
        assert await other.lease_owner(1) is None

        await store.acquire(1, owner="b", ttl_ms=30)
        assert await other.lease_owner(1) == "b"
        await backend.reach(store, await store.now_ms() + 31)
        assert await other.lease_owner(1) is None

    backend.run(main)


def test_the_next_owner_and_no_other_hears_that_the_last_one_rested(backend: Backend) -> None:
    async def main(store: Store) -> None:
        heard: list[int] = []
        for rested in (True, False, True):
            lease = await store.acquire(1, owner="a", ttl_ms=60_000)
            assert lease is not None
            heard.append(lease.rested_epoch)
            await store.release(lease, rested=rested)
        for _ in range(2):
            lease = await store.acquire(1, owner="a", ttl_ms=60_000)
            assert lease is not None
            heard.append(lease.rested_epoch)

        assert heard == [0, 1, 0, 3, 0]

    backend.run(main)


def test_release_of_a_stale_lease_is_ignored(backend: Backend) -> None:
    async def main(store: Store) -> None:
        stale = await store.acquire(1, owner="a", ttl_ms=60_000)
        held = await store.acquire(1, owner="a", ttl_ms=60_000)
        assert stale is not None
        assert held is not None
        await store.release(stale)

        assert await store.acquire(1, owner="b", ttl_ms=1000) is None
        assert (await store.renew([held], ttl_ms=1000))[0].held

    backend.run(main)


@pytest.mark.parametrize("partition", [-1, 4])
def test_unknown_partition_is_refused(backend: Backend, partition: int) -> None:
    async def main(store: Store) -> None:
        with pytest.raises(InvalidRequestError, match="partition"):
            await store.acquire(partition, owner="a", ttl_ms=1000)

    backend.run(main)


def test_all_views_know_the_number_of_partitions(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert store.partitions == backend.partitions
        assert (await backend.view()).partitions == backend.partitions

    backend.run(main)
