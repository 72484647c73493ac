"""Servers of their own for tests that hurt them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import uvloop

from fluvial.ids import partition_of
from fluvial_queue import Store
from fluvial_queue.contract import (
    CommitEntry,
    Durability,
    Lease,
    StartOutcome,
    StartRun,
    StoreUnavailableError,
)
from fluvial_queue.redis.address import parse_address
from fluvial_queue.redis.embedded import EmbeddedValkey
from fluvial_queue.redis.link import Link

TEST_SECONDS = 60.0
T = TypeVar("T")


class Lab:
    """Servers and helpers for one test; everything ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = AsyncExitStack()

    async def server(self, durability: Durability = "process", **options: Any) -> EmbeddedValkey:
        """A started server in the test's folder."""
        server = EmbeddedValkey(
            self.folder, durability=durability, socket_path=self.folder / "s", **options
        )
        await server.start()
        self._stack.push_async_callback(server.stop)
        return server

    async def opened(self, store: Store) -> Store:
        """An open store."""
        await store.open()
        self._stack.push_async_callback(store.close)
        return store

    async def link(self, url: str, **options: Any) -> Link:
        """An open connection for commands of the test's own."""
        link = Link(parse_address(url), **options)
        await link.open()
        self._stack.push_async_callback(link.close)
        return link

    async def command(self, url: str, *words: str | int) -> Any:
        """Send one command over a connection of its own."""
        link = Link(parse_address(url))
        await link.open()
        try:
            return await link.call(words, writes=False)
        finally:
            await link.close()

    async def answered(self, call: Callable[[], Awaitable[T]]) -> T:
        """What a read answers once the store can be reached again; each failure takes a pause."""
        while True:
            try:
                return await call()
            except StoreUnavailableError:
                continue

    async def kill(self, server: EmbeddedValkey) -> None:
        """kill -9 the server and wait until it is dead."""
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL

    async def lease(self, store: Store, partition: int) -> Lease:
        """A lease that outlives the test."""
        lease = await store.acquire(partition, owner="owner", ttl_ms=600_000)
        assert lease is not None
        return lease

    async def first_entry(self, store: Store, lease: Lease, run_id: str) -> CommitEntry:
        """Start a run; return an entry that handles its START and appends the run's id."""
        run = StartRun(run_id=run_id, app="a", workflow="w", deployment="d", input=b"i")
        assert partition_of(run_id) == lease.partition
        assert await store.start(run) is StartOutcome.ACCEPTED
        window = await store.window(lease, after="", limit=100_000)
        assert window is not None
        return CommitEntry(
            run_id=run_id, handled=(window[-1].id,), base=0, events=(run_id.encode(),)
        )

    def run(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run a test's coroutine, then end what it started."""

        async def bounded() -> None:
            async with asyncio.timeout(TEST_SECONDS), self._stack:
                await main()

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as the gateway
            runner.run(bounded())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A folder and helpers for servers of the test's own."""
    return Lab(tmp_path)
