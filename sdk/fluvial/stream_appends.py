"""Chunks on their way from a step to the store: batched, in order, bounded.

One append of a writer is under way at a time; what is written meanwhile goes into the next one. So
chunks arrive in order, and a slow store costs few large appends instead of many small ones. What
is written in one turn of the event loop leaves in one append.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from fluvial.errors import StreamClosedError, UnavailableError
from fluvial.invocations import pack_events
from fluvial.ports import Platform
from fluvial.stream_entries import MAX_APPEND_BYTES, MAX_CHUNKS

# What one writer holds in memory before it waits; a chunk that is under way counts too.
MAX_HELD_CHUNKS: Final = 2 * MAX_CHUNKS
MAX_HELD_BYTES: Final = 2 * 1024 * 1024
PATIENCE_SECONDS: Final = 30.0  # with a platform that cannot answer; then the attempt fails
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Appends:
    """The appends of one attempt to one stream; used from one event loop."""

    def __init__(
        self, platform: Platform, name: str, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._platform = platform
        self._name = name
        self._patience_seconds = patience_seconds
        self._chunks: deque[bytes] = deque()
        self._held_bytes = 0
        self._accepted = 0
        self._has_begun = False
        self._is_closing = False
        self._error: Exception | None = None
        self._sender: asyncio.Task[None] | None = None
        self._progress = asyncio.Event()

    def add(self, chunk: bytes) -> None:
        """Take a chunk; `wait_for_room` afterwards.

        Raises:
            FluvialError: an earlier chunk was refused.
        """
        self._check()
        self._chunks.append(chunk)
        self._held_bytes += len(chunk)
        self._start()

    async def wait_for_room(self) -> None:
        """Wait while too much is held."""
        while self._is_full():
            await self._wait()

    async def drain(self) -> None:
        """Wait until everything was accepted, and at least the beginning."""
        self._check()
        if not self._has_begun:
            self._start()
        while self._sender is not None:
            await self._wait()

    async def close(self) -> None:
        """Close the stream behind the last chunk; wait until that was accepted."""
        self._check()
        self._is_closing = True
        self._start()
        await self.drain()

    async def abandon(self) -> None:
        """Drop what is held and refuse more: the attempt has ended."""
        self._error = self._error or StreamClosedError("the step has ended")
        sender = self._sender
        if sender is not None:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        self._progress.set()  # a thread of the step may still wait for room

    def _is_full(self) -> bool:
        return self._held_bytes > MAX_HELD_BYTES or len(self._chunks) > MAX_HELD_CHUNKS

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _wait(self) -> None:
        self._progress.clear()
        await self._progress.wait()
        self._check()

    def _start(self) -> None:
        """Have a task that sends; it begins in the next turn of the loop, so that what is written
        in this one goes together. The attempt owns it: it ends with `drain` or `abandon`."""
        if self._sender is None:
            self._sender = asyncio.create_task(self._send(), name=f"stream {self._name}")

    async def _send(self) -> None:
        try:
            while self._chunks or self._is_closing or not self._has_begun:
                await self._append(self._next_batch())
                self._progress.set()
        except Exception as error:  # noqa: BLE001 - whoever writes or drains next raises it
            self._error = error
        finally:
            self._sender = None
            self._progress.set()

    def _next_batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for chunk in self._chunks:
            size += len(chunk)
            if batch and (len(batch) == MAX_CHUNKS or size > MAX_APPEND_BYTES):
                break
            batch.append(chunk)
        return batch

    async def _append(self, batch: list[bytes]) -> None:
        closes = self._is_closing and len(batch) == len(self._chunks)
        arguments = {"name": self._name, "first": self._accepted, "close": closes}
        await self._call(arguments, pack_events(batch))
        self._has_begun = True
        self._accepted += len(batch)
        for chunk in batch:
            self._chunks.popleft()
            self._held_bytes -= len(chunk)
        if closes:
            self._is_closing = False

    async def _call(self, arguments: dict[str, Any], body: bytes) -> None:
        """Ask until there is an answer: an append that is repeated changes nothing."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._platform.call("stream_append", arguments, body)
            except UnavailableError:
                if clock() + pause > deadline:
                    raise
            else:
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
