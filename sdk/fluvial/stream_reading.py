"""Reading streams: from any position on, for as long as something may follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from fluvial.codec import decode
from fluvial.errors import UnavailableError
from fluvial.invocations import unpack_events
from fluvial.ports import Platform
from fluvial.shapes import Shape
from fluvial.stream_entries import StreamEntry, check_stream_name, decode_entry, place_of_chunk
from fluvial.unguarded import monotonic

T = TypeVar("T")

_WAIT_MS: Final = 20_000  # one question to the platform; a longer wait asks again
PATIENCE_SECONDS: Final = 60.0  # with a platform that cannot answer
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk(Generic[T]):
    """One chunk, and where it stands."""

    position: int  # in the stream; a reader that has it goes on with `start=position + 1`
    value: T
    step_id: int
    attempt: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The step is executed once more: what it wrote from position `since` up to here is void."""

    position: int
    step_id: int
    attempt: int  # the one that begins here
    since: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """A stream of a run, without what is in it."""

    name: str
    length: int  # in positions: chunks, void ones too, and resets
    bytes: int  # as stored
    closed: bool


class StreamReader(Generic[T]):
    """Iterates over a stream's values until it is closed; `async for` may be used many times, each
    goes on where the last one ended.

    Chunks of an execution that was cut off or failed are not given once the next one has begun.
    Those given before cannot be taken back: `entries()` tells of them by a `StreamReset`.
    """

    def __init__(
        self,
        served_by: Platform,
        run_id: str,
        name: str,
        *,
        start: int,
        shape: Shape,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self.name = check_stream_name(name)
        self.position = start  # of the next entry; negative: so many before the end
        self._platform = served_by
        self._run_id = run_id
        self._shape = shape
        self._patience_seconds = patience_seconds

    def __repr__(self) -> str:
        return f"<reader of stream {self.name} of {self._run_id} at {self.position}>"

    def __aiter__(self) -> AsyncIterator[T]:
        return self._values()

    async def entries(self) -> AsyncGenerator[StreamChunk[T] | StreamReset, None]:
        """Yield chunks with their positions, and a `StreamReset` where chunks became void.

        Raises:
            RunNotFoundError: there is no such run, or its retention is over.
            DecryptionError, SerializationError: a chunk was altered, or does not fit the type.
            UnavailableError: the platform could not answer for a long while.
        """
        closed = False
        while not closed:
            found, closed = await self._read()
            for entry in found:
                self.position = entry.position + 1
                yield self._decoded(entry)

    async def _values(self) -> AsyncGenerator[T, None]:
        async for item in self.entries():
            if isinstance(item, StreamChunk):
                yield item.value

    async def _read(self) -> tuple[list[StreamEntry], bool]:
        arguments = {
            "run_id": self._run_id,
            "name": self.name,
            "start": self.position,
            "wait_ms": _WAIT_MS,
        }
        found, body = await self._ask(arguments)
        entries = list(map(decode_entry, unpack_events(body)))
        if not entries:
            self.position = int(found["next"])
        return entries, bool(found["closed"])

    async def _ask(self, arguments: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        deadline = monotonic() + self._patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._platform.call("stream_read", arguments)
            except UnavailableError:
                if monotonic() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _decoded(self, entry: StreamEntry) -> StreamChunk[T] | StreamReset:
        at = datetime.fromtimestamp(entry.at_ms / 1000, UTC)
        if entry.since is not None:
            return StreamReset(
                position=entry.position,
                step_id=entry.step_id,
                attempt=entry.attempt,
                since=entry.since,
                at=at,
            )
        keys = self._platform.keys.for_run(self._run_id)
        place = place_of_chunk(self.name, entry.step_id, entry.attempt)
        plaintext = keys.open(entry.payload, "chunk", place, entry.index)
        return StreamChunk(
            position=entry.position,
            value=decode(plaintext, self._shape, "chunk"),
            step_id=entry.step_id,
            attempt=entry.attempt,
            at=at,
        )


async def list_streams(served_by: Platform, run_id: str) -> list[StreamInfo]:
    """Return a run's streams in the order in which they were made.

    Raises:
        RunNotFoundError: there is no such run, or its retention is over.
    """
    found, _ = await served_by.call("streams", {"run_id": run_id})
    return [
        StreamInfo(name=name, length=length, bytes=size, closed=closed)
        for name, length, size, closed in found["streams"]
    ]
