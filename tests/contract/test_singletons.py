"""Singletons: one live run of an app for a text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fluvial.ids import continued_run_id, new_run_id
from fluvial_queue import Store
from fluvial_queue.contract import RunStatus, StartOutcome
from fluvial_queue.singletons import GRACE_MS, START_WITHIN_MS

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


def test_the_first_claim_holds_before_its_run_exists(backend: Backend) -> None:
    async def main(store: Store) -> None:
        first, second = new_run_id(backend.partitions), new_run_id(backend.partitions)
        before = await store.now_ms()
        claim = await store.claim_singleton("shop", "k", first)
        assert claim.holder == first
        after = await store.now_ms()
        assert before <= claim.start_before_ms - START_WITHIN_MS <= after
        assert 2 * START_WITHIN_MS <= GRACE_MS  # long before anybody may take it for void

        assert (await store.claim_singleton("shop", "k", second)).holder == first
        assert (await store.claim_singleton("shop", "k", first)).holder == first
        assert (await store.claim_singleton("shop", "other", second)).holder == second
        assert (await store.claim_singleton("other", "k", second)).holder == second

    backend.run(main)


def test_a_claim_is_void_once_its_run_has_ended(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await store.claim_singleton("shop", "k", run.run_id)
        await run.commit(events=(b"e",), status=RunStatus.COMPLETED)

        other = new_run_id(backend.partitions)
        assert (await store.claim_singleton("shop", "k", other)).holder == other

    backend.run(main)


def test_a_run_that_goes_on_as_a_new_one_keeps_its_claim(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await store.claim_singleton("shop", "k", run.run_id)
        following = continued_run_id(run.run_id)
        await store.start(backend.start_run(following))
        await run.commit(events=(b"e",), status=RunStatus.CONTINUED)

        other = new_run_id(backend.partitions)
        assert (await store.claim_singleton("shop", "k", other)).holder == following

    backend.run(main)


def test_a_claim_gives_way_to_whoever_replaces_its_run(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await store.claim_singleton("shop", "k", run.run_id)
        other = new_run_id(backend.partitions)

        claim = await store.claim_singleton("shop", "k", other, replaces=run.run_id)
        assert claim.holder == other

    backend.run(main)


def test_racing_claims_have_one_winner(backend: Backend) -> None:
    async def main(store: Store) -> None:
        ids = [new_run_id(backend.partitions) for _ in range(10)]
        claims = await asyncio.gather(*[store.claim_singleton("shop", "k", i) for i in ids])

        assert len({claim.holder for claim in claims}) == 1

    backend.run(main)


def test_a_start_that_comes_too_late_is_refused(backend: Backend) -> None:
    async def main(store: Store) -> None:
        now_ms = await store.now_ms()
        late = backend.start_run(not_after_ms=now_ms - 1)
        assert await store.start(late) is StartOutcome.LATE
        assert await store.read_run(late.run_id) is None

        in_time = backend.start_run(not_after_ms=now_ms + 60_000)
        assert await store.start(in_time) is StartOutcome.ACCEPTED

    backend.run(main)
