"""The stores that the contract suite runs on, and the run that most tests act on.

Test modules cannot import this one; they get what they need through the `backend` fixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fluvial.ids import new_run_id, partition_of
from fluvial_queue import MemoryStore, Store, open_store
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    RunRecord,
    StartOutcome,
    StartRun,
    StoredMessage,
)
from fluvial_queue.messages import Message, MessageKind

TEST_SECONDS = 30.0
RETENTION_SECONDS = 2
STREAM_BYTES = 8 * 1024 * 1024  # of a run


class OwnedRun:
    """A run, the lease over its partition, and what the owner would know of it."""

    def __init__(self, store: Store, run_id: str, lease: Lease, message_id: str) -> None:
        self.store = store
        self.run_id = run_id
        self.lease = lease
        self.handle = message_id  # the message that the next commit handles
        self.length = 0

    def entry(self, **changes: Any) -> CommitEntry:
        """An entry that handles the run's message on the current log, with `changes`."""
        fields: dict[str, Any] = {"handled": (self.handle,), "base": self.length, **changes}
        return CommitEntry(run_id=self.run_id, **fields)

    async def commit(self, *, lease: Lease | None = None, **changes: Any) -> CommitAnswer:
        """Commit `entry(**changes)` and keep up with what it did."""
        entry = self.entry(**changes)
        reply = await self.store.commit(lease or self.lease, [entry])
        (answer,) = reply.answers
        if answer.outcome is CommitOutcome.OK:
            self.length += len(entry.events)
            self.handle = answer.message_ids[0] if answer.message_ids else ""
        return answer

    async def messages(self) -> list[StoredMessage]:
        """All outstanding messages of the partition."""
        window = await self.store.window(self.lease, after="", limit=1000)
        assert window is not None
        return window

    async def record(self) -> RunRecord:
        """The run's record."""
        record = await self.store.read_run(self.run_id)
        assert record is not None
        return record

    def timer(self, number: int) -> bytes:
        """The body of a timer's message."""
        return Message(MessageKind.TIMER, self.run_id, number).encode()


class Backend:
    """One store's data; `view` gives another client of it."""

    partitions = 4
    stream_bytes = STREAM_BYTES

    def __init__(self, url: str) -> None:
        self._url = url
        self._memory = MemoryStore(
            now_ms=lambda: self._clock_ms,
            partitions=self.partitions,
            retention_ms=RETENTION_SECONDS * 1000,
            stream_bytes=STREAM_BYTES,
        )
        self._clock_ms = 1_700_000_000_000
        self._views: list[Store] = []

    @property
    def is_memory(self) -> bool:
        return not self._url

    async def view(self) -> Store:
        """An open store on the same data."""
        store: Store = self._memory.view() if self.is_memory else open_store(self._url)
        await store.open()
        self._views.append(store)
        return store

    async def reach(self, store: Store, moment_ms: int) -> None:
        """Return when the store's clock has reached a moment: move it, or wait until then."""
        if self.is_memory:
            self._clock_ms = max(self._clock_ms, moment_ms)
            return
        while (left_ms := moment_ms - await store.now_ms()) > 0:
            reached = asyncio.Event()
            asyncio.get_running_loop().call_later(left_ms / 1000, reached.set)
            await reached.wait()

    def run(self, main: Callable[[Store], Awaitable[None]]) -> None:
        """Run a test's coroutine with a store."""

        async def bounded() -> None:
            async with asyncio.timeout(TEST_SECONDS):
                try:
                    await main(await self.view())
                finally:
                    for store in self._views:
                        await store.close()
                    self._views.clear()

        asyncio.run(bounded())

    def start_run(self, run_id: str = "", **changes: Any) -> StartRun:
        """A run to start."""
        fields: dict[str, Any] = {
            "run_id": run_id or new_run_id(self.partitions),
            "app": "shop",
            "workflow": "fulfil",
            "deployment": "dpl_1",
            "input": b"sealed",
            **changes,
        }
        return StartRun(**fields)

    async def owned_run(self, store: Store, **changes: Any) -> OwnedRun:
        """Start a run and own its partition; the START message is outstanding."""
        run = self.start_run(**changes)
        assert await store.start(run) is StartOutcome.ACCEPTED
        lease = await store.acquire(partition_of(run.run_id), owner="owner", ttl_ms=60_000)
        assert lease is not None
        window = await store.window(lease, after="", limit=1000)
        assert window is not None
        return OwnedRun(store, run.run_id, lease, window[-1].id)


@pytest.fixture(params=["memory", "valkey"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each implementation of the store contract, empty."""
    if request.param == "memory":
        return Backend("")
    url: str = request.getfixturevalue("valkey_url")
    return Backend(f"{url}&retention={RETENTION_SECONDS}&stream_bytes={STREAM_BYTES}")
