"""Doorbells: hints that wake whoever waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fluvial_queue import Store
from fluvial_queue.contract import Bell, RunStatus

if TYPE_CHECKING:
    from tests.contract.conftest import Backend


async def heard(bells: AsyncIterator[Bell]) -> Bell:
    """The next bell, soon."""
    async with asyncio.timeout(5):
        return await anext(bells)


def test_first_bell_says_that_the_subscription_has_begun(backend: Backend) -> None:
    async def main(store: Store) -> None:
        assert await heard(store.bells()) == Bell("lost")

    backend.run(main)


def test_start_and_send_ring_for_the_partition(backend: Backend) -> None:
    async def main(store: Store) -> None:
        bells = (await backend.view()).bells()
        await heard(bells)
        run = await backend.owned_run(store)
        assert await heard(bells) == Bell("messages", partition=run.lease.partition)

        await store.send(run.run_id, b"m")
        assert await heard(bells) == Bell("messages", partition=run.lease.partition)

    backend.run(main)


def test_only_the_end_of_a_run_rings_of_its_commits(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        bells = [store.bells(), (await backend.view()).bells()]
        for listener in bells:
            await heard(listener)
        await run.commit(events=(b"e",), messages=(b"m",), status=RunStatus.RUNNING)
        await run.commit(events=(b"e",), status=RunStatus.COMPLETED)

        for listener in bells:
            assert await heard(listener) == Bell("finished", run_id=run.run_id)

    backend.run(main)


def test_refused_start_and_send_do_not_ring(backend: Backend) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        bells = store.bells()
        await heard(bells)
        await store.start(backend.start_run(run.run_id))
        await store.send(run.run_id, b"m", token="no such hook")
        await run.commit(status=RunStatus.COMPLETED)

        assert (await heard(bells)).kind == "finished"

    backend.run(main)


def test_closing_the_store_ends_the_bells(backend: Backend) -> None:
    async def main(store: Store) -> None:
        begun = asyncio.Event()

        async def listen() -> list[Bell]:
            bells: list[Bell] = []
            async for bell in store.bells():
                bells.append(bell)
                begun.set()
            return bells

        listening = asyncio.ensure_future(listen())
        async with asyncio.timeout(5):
            await begun.wait()
            await store.close()
            assert (await listening)[0] == Bell("lost")
            assert [bell async for bell in store.bells()] == []

    backend.run(main)
