"""Reading streams: positions, types, resets, and a platform that is away now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fluvial.codec import encode
from fluvial.encryption import AppKeys
from fluvial.errors import (
    DecryptionError,
    InvalidRequestError,
    RunNotFoundError,
    SerializationError,
    UnavailableError,
)
from fluvial.events import Event, EventType
from fluvial.ids import new_run_id
from fluvial.invocations import pack_events
from fluvial.payloads import PayloadReader, render
from fluvial.runs import Run
from fluvial.shapes import ANY
from fluvial.stream_entries import StreamEntry, decode_entry, place_of_chunk
from fluvial.stream_reading import StreamChunk, StreamInfo, StreamReader, StreamReset

RUN = "run_0000000000000000000000000a"
AT_MS = 1_700_000_000_000
PAGE = 3


@dataclass
class Token:
    text: str


class ReadingPlatform:
    """A platform with one stream, which tests write into; pages are short."""

    partitions = 4

    def __init__(self) -> None:
        self.keys = AppKeys("orders", {"k1": bytes(range(32))}, "k1")
        self.app = self.keys.app
        self.entries: list[StreamEntry] = []
        self.void: set[int] = set()
        self.closed = False
        self.calls: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.changed = asyncio.Event()

    def write(self, *values: Any, step_id: int = 1, attempt: int = 1) -> None:
        keys = self.keys.for_run(RUN)
        for value in values:
            index = sum(e.step_id == step_id and e.attempt == attempt for e in self.entries)
            place = place_of_chunk("tokens", step_id, attempt)
            sealed = keys.seal(encode(value), "chunk", place, index)
            self._add(step_id, attempt, index, sealed, None)
        self.changed.set()

    def reset(self, since: int, *, step_id: int = 1, attempt: int = 2) -> None:
        self.void |= {e.position for e in self.entries if e.position >= since}
        self._add(step_id, attempt, 0, b"", since)

    def _add(
        self, step_id: int, attempt: int, index: int, payload: bytes, since: int | None
    ) -> None:
        self.entries.append(
            StreamEntry(
                position=len(self.entries),
                step_id=step_id,
                attempt=attempt,
                index=index,
                at_ms=AT_MS + len(self.entries),
                payload=payload,
                since=since,
            )
        )

    def close(self) -> None:
        self.closed = True
        self.changed.set()

    def new_run_id(self) -> str:
        return new_run_id(self.partitions)

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        if self.errors:
            raise self.errors.pop(0)
        if operation == "streams":
            return {"streams": [["tokens", len(self.entries), 99, self.closed]]}, b""
        assert (operation, arguments["name"], arguments["run_id"]) == ("stream_read", "tokens", RUN)
        self.calls.append(arguments)
        start = arguments["start"]
        position = start if start >= 0 else max(0, len(self.entries) + start)
        while position >= len(self.entries) and not self.closed:
            self.changed.clear()
            await self.changed.wait()
        page = self.entries[position : position + PAGE]
        position += len(page)
        found = [entry.encode() for entry in page if entry.position not in self.void]
        closed = self.closed and position >= len(self.entries)
        return {"next": position, "length": len(self.entries), "closed": closed}, pack_events(found)


def read(main: Callable[[ReadingPlatform, Run[Any]], Awaitable[None]]) -> None:
    async def bounded() -> None:
        platform = ReadingPlatform()
        async with asyncio.timeout(30):
            await main(platform, Run(RUN, platform, None))

    asyncio.run(bounded())


def test_values_are_given_in_order_until_the_stream_is_closed() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write(*range(10))
        platform.close()

        assert [value async for value in run.stream("tokens")] == list(range(10))
        assert [call["start"] for call in platform.calls] == [0, 3, 6, 9]

    read(main)


def test_a_reader_waits_for_what_is_to_come() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        values = aiter(run.stream("tokens"))
        for number in range(5):
            waiting = asyncio.ensure_future(anext(values))
            await asyncio.sleep(0)
            platform.write(number)
            assert await waiting == number
        platform.close()
        with pytest.raises(StopAsyncIteration):
            await anext(values)

    read(main)


@pytest.mark.parametrize(("start", "expected"), [(0, 0), (4, 4), (-2, 4), (-99, 0)])
def test_a_reader_begins_where_it_is_told_to(start: int, expected: int) -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write(*range(6))
        platform.close()

        values = [value async for value in run.stream("tokens", start=start)]
        assert values == list(range(expected, 6))

    read(main)


def test_a_reader_that_went_away_goes_on_behind_what_it_had() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write(*range(8))
        platform.close()
        reader = run.stream("tokens")
        first: list[int] = []
        async for value in reader:
            first.append(value)
            if len(first) == 4:
                break
        assert (first, reader.position) == ([0, 1, 2, 3], 4)

        assert [value async for value in reader] == [4, 5, 6, 7]
        assert reader.position == 8

    read(main)


def test_entries_tell_positions_and_resets() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write("a", "b")
        platform.reset(0)
        platform.write("A", attempt=2)
        platform.close()
        entries = [entry async for entry in run.stream("tokens").entries()]

        at = datetime.fromtimestamp(AT_MS / 1000, UTC)
        assert [(entry.at - at).microseconds for entry in entries] == [2000, 3000]
        at = entries[0].at
        assert entries == [
            StreamReset(position=2, step_id=1, attempt=2, since=0, at=at),
            StreamChunk(position=3, value="A", step_id=1, attempt=2, at=entries[1].at),
        ]
        assert [value async for value in run.stream("tokens")] == ["A"]

    read(main)


def test_a_page_of_void_chunks_is_passed_over() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write(*"abcdefg")
        platform.reset(0)
        platform.close()

        assert [value async for value in run.stream("tokens")] == []
        assert [call["start"] for call in platform.calls] == [0, 3, 6]

    read(main)


def test_values_are_shaped_by_the_type() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write(Token("a"), {"text": "b"})
        platform.close()
        tokens = [token async for token in run.stream("tokens", type=Token)]
        assert tokens == [Token("a"), Token("b")]

        platform.write(3)
        with pytest.raises(SerializationError):
            _ = [token async for token in run.stream("tokens", start=2, type=Token)]

    read(main)


@pytest.mark.parametrize("moved", ["index", "step", "attempt", "payload"])
def test_a_chunk_that_was_moved_does_not_open(moved: str) -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write("a", "b")
        platform.close()
        one, other = platform.entries
        platform.entries[0] = {
            "index": replace(one, index=1),
            "step": replace(one, step_id=2),
            "attempt": replace(one, attempt=2),
            "payload": replace(one, payload=other.payload),
        }[moved]
        with pytest.raises(DecryptionError):
            _ = [value async for value in run.stream("tokens")]

    read(main)


def test_a_platform_that_is_away_for_a_moment_is_asked_again() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write("a")
        platform.close()
        platform.errors = [UnavailableError("away"), UnavailableError("away")]

        assert [value async for value in run.stream("tokens")] == ["a"]

    read(main)


def test_patience_with_the_platform_ends() -> None:
    async def main(platform: ReadingPlatform, _: Run[Any]) -> None:
        platform.errors = [UnavailableError("away") for _ in range(100)]
        reader: StreamReader[Any] = StreamReader(
            platform, RUN, "tokens", start=0, shape=ANY, patience_seconds=0.2
        )
        with pytest.raises(UnavailableError, match="away"):
            await anext(aiter(reader))

    read(main)


def test_a_run_that_is_not_there_is_an_error() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.errors = [RunNotFoundError(RUN)]
        with pytest.raises(RunNotFoundError):
            await anext(aiter(run.stream("tokens")))

    read(main)


def test_streams_are_listed() -> None:
    async def main(platform: ReadingPlatform, run: Run[Any]) -> None:
        platform.write("a")

        assert await run.streams() == [StreamInfo(name="tokens", length=1, bytes=99, closed=False)]

    read(main)


def test_a_name_that_no_stream_can_have_is_refused() -> None:
    async def main(_: ReadingPlatform, run: Run[Any]) -> None:
        with pytest.raises(InvalidRequestError, match="a stream's name"):
            run.stream("no such name")

    read(main)


def test_entries_survive_the_way() -> None:
    entry = StreamEntry(
        position=1, step_id=2, attempt=3, index=4, at_ms=5, payload=b"p", since=None
    )

    assert decode_entry(entry.encode()) == entry


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("tok", '{"value": "tok"}'),
        ({"n": [1, None]}, '{"value": {"n": [1, null]}}'),
        (b"\x00\xff", '{"bytes": "AP8="}'),
        ({1}, '{"repr": "{1}"}'),
    ],
)
def test_people_see_what_a_chunk_holds(value: Any, text: str) -> None:
    keys = AppKeys("orders", {"k1": bytes(range(32))}, "k1").for_run(RUN)
    sealed = keys.seal(encode(value), "chunk", place_of_chunk("tokens", 3, 2), 9)
    meta = {"stream": "tokens", "attempt": 2, "index": 9}
    chunk = Event(EventType.STREAM_CHUNK, AT_MS, 3, sealed, meta)

    assert list(render(PayloadReader(keys), [chunk])) == [text]
