"""Writing streams in steps: what `fluvial.stream()` returns, and the streams of one attempt.

An attempt's result is answered only after every chunk that it wrote has been accepted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from fluvial.codec import encode
from fluvial.context import platform
from fluvial.errors import FluvialError, SerializationError, StreamClosedError
from fluvial.stream_appends import Appends
from fluvial.stream_entries import MAX_CHUNK_BYTES, place_of_chunk

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys, RunKeys
    from fluvial.invocations import StepRequest

# How long an attempt that failed waits for what it wrote before: its error is told in any case.
_LAST_WORDS_SECONDS: Final = 5.0


class ChunkSink(Protocol):
    """Where a writer's chunks go."""

    async def put(self, plaintext: bytes) -> None:
        """Take a chunk; returns when there is room for more."""
        ...

    async def drain(self) -> None:
        """Return when everything was accepted."""
        ...

    async def close(self) -> None:
        """Close the stream behind the last chunk."""
        ...


class StreamWriter:
    """Writes chunks to one stream of the run; `async with` closes the stream at the end.

    A chunk is any value that a step may return. Chunks of one writer keep their order.
    """

    def __init__(self, name: str, sink: ChunkSink) -> None:
        self.name = name
        self._sink = sink

    def __repr__(self) -> str:
        return f"<writer of stream {self.name}>"

    async def write(self, value: Any) -> None:
        """Write one chunk. Waits while earlier ones are not accepted and take too much memory, so
        a step writes no faster than the store takes.

        Raises:
            SerializationError: the value cannot be stored; the path names what cannot.
            StreamClosedError: the stream was closed.
            StreamFullError: the run's streams hold as much as they may.
            UnavailableError: the platform could not take earlier chunks for a long while.
        """
        await self._sink.put(encode_chunk(value))

    async def drain(self) -> None:
        """Wait until every chunk was accepted; a step's end does so by itself. Raises as `write`
        does."""
        await self._sink.drain()

    async def close(self) -> None:
        """Close the stream for everybody once every chunk was accepted: readers see its end now,
        not only when the run ends. Raises as `write` does."""
        await self._sink.close()

    async def __aenter__(self) -> StreamWriter:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self.close()


class BlockingStreamWriter:
    """The same for sync steps, which run in a thread: every method returns when it is done."""

    def __init__(self, writer: StreamWriter, loop: asyncio.AbstractEventLoop | None) -> None:
        """`loop`: where the writer's chunks are sent; None: they go nowhere."""
        self.name = writer.name
        self._writer = writer
        self._loop = loop

    def __repr__(self) -> str:
        return repr(self._writer)

    def write(self, value: Any) -> None:
        """Write one chunk; see `StreamWriter.write`."""
        self._wait(self._writer.write(value))

    def drain(self) -> None:
        """Wait until every chunk was accepted."""
        self._wait(self._writer.drain())

    def close(self) -> None:
        """Close the stream for everybody."""
        self._wait(self._writer.close())

    def __enter__(self) -> BlockingStreamWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()

    def _wait(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(work, self._loop).result()
            return
        try:
            work.send(None)  # nothing in it waits
        except StopIteration:
            return


class AttemptStreams:
    """The streams that one attempt of a step writes; around its body, as an async context."""

    __slots__ = ("_has_ended", "_keys", "_loop", "_request", "_sinks", "_token", "_writers")

    def __init__(self, request: StepRequest, keys: AppKeys) -> None:
        self._request = request
        self._keys = keys
        self._loop = asyncio.get_running_loop()
        self._sinks: list[_Sealed] = []
        self._writers: dict[str, StreamWriter] = {}
        self._has_ended = False
        self._token: Token[AttemptStreams | None] | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that the attempt's chunks are sent on."""
        return self._loop

    def writer(self, name: str) -> StreamWriter:
        """Return the attempt's writer of a stream: always the same, as its chunks are counted.

        Raises:
            StreamClosedError: the attempt has ended.
        """
        self.check()
        writer = self._writers.get(name)
        if writer is None:
            keys = self._keys.for_run(self._request.run_id)
            place = place_of_chunk(name, self._request.id, self._request.attempt)
            sink = _Sealed(self, Appends(platform("stream"), name), keys, place)
            self._sinks.append(sink)
            writer = self._writers[name] = StreamWriter(name, sink)
        return writer

    def check(self) -> None:
        """Raises:
        StreamClosedError: the attempt has ended.
        """
        if self._has_ended:
            raise StreamClosedError("the step has ended, and with it its writing of streams")

    async def __aenter__(self) -> AttemptStreams:
        self._token = _streams.set(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None:
            _streams.reset(self._token)
        if not self._sinks:
            self._has_ended = True
            return
        try:
            if error is None:
                await self._drain()
            elif not isinstance(error, asyncio.CancelledError):
                await self._send_last_words(error)
        finally:
            self._has_ended = True
            for sink in self._sinks:
                await sink.appends.abandon()

    async def _drain(self) -> None:
        for sink in self._sinks:
            await sink.appends.drain()

    async def _send_last_words(self, error: BaseException) -> None:
        """What a failed attempt wrote may say why it failed; its own error stands."""
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._drain()
        except (FluvialError, TimeoutError) as lost:
            error.add_note(f"what the step wrote to its streams may be incomplete: {lost!r}")


_streams: ContextVar[AttemptStreams | None] = ContextVar("fluvial_streams", default=None)


def attempt_streams() -> AttemptStreams | None:
    """Return the streams of the attempt that is running here, if a run executes one."""
    return _streams.get()


class Nowhere:
    """A sink for steps that no run executes: what they write is encoded, and that is all."""

    def __init__(self) -> None:
        self._is_closed = False

    async def put(self, plaintext: bytes) -> None:
        if self._is_closed:
            raise StreamClosedError("the stream was closed")

    async def drain(self) -> None: ...

    async def close(self) -> None:
        self._is_closed = True


class _Sealed:
    """Seals the chunks of one attempt for their place, and hands them to its appends."""

    def __init__(self, owner: AttemptStreams, appends: Appends, keys: RunKeys, place: str) -> None:
        self.appends = appends
        self._owner = owner
        self._keys = keys
        self._place = place
        self._index = 0
        self._is_closed = False

    async def put(self, plaintext: bytes) -> None:
        self._owner.check()
        if self._is_closed:
            raise StreamClosedError("the step has closed this stream")
        sealed = self._keys.seal(plaintext, "chunk", self._place, self._index)
        self.appends.add(sealed)
        self._index += 1
        await self.appends.wait_for_room()

    async def drain(self) -> None:
        self._owner.check()
        await self.appends.drain()

    async def close(self) -> None:
        self._owner.check()
        if not self._is_closed:
            self._is_closed = True
            await self.appends.close()


def encode_chunk(value: Any) -> bytes:
    """Return the plaintext of a chunk.

    Raises:
        SerializationError: the value cannot be stored, or is too large.
    """
    plaintext = encode(value, "chunk")
    if len(plaintext) > MAX_CHUNK_BYTES:
        raise SerializationError(
            "chunk",
            f"has {len(plaintext)} bytes encoded, above the limit of {MAX_CHUNK_BYTES}; "
            "write it in parts, or store it elsewhere and write a reference",
        )
    return plaintext
