"""Writing streams in a step: order, batches, back-pressure, ends and errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

import fluvial
from fluvial.codec import decode
from fluvial.context import activate
from fluvial.encryption import AppKeys
from fluvial.errors import (
    FluvialError,
    InvalidRequestError,
    SerializationError,
    StreamClosedError,
    StreamFullError,
    UnavailableError,
)
from fluvial.ids import new_run_id
from fluvial.invocations import StepRequest, unpack_events
from fluvial.stream_appends import MAX_HELD_BYTES, MAX_HELD_CHUNKS, Appends
from fluvial.stream_entries import MAX_APPEND_BYTES, MAX_CHUNK_BYTES, MAX_CHUNKS, place_of_chunk
from fluvial.stream_writing import AttemptStreams

RUN = "run_0000000000000000000000000a"
REQUEST = StepRequest(
    run_id=RUN,
    app="orders",
    workflow="w",
    step="s",
    id=7,
    attempt=2,
    invocation="inv_x",
    timeout_ms=0,
    now_ms=0,
    carry=None,
    input=b"",
)


class AppendingPlatform:
    """A platform that takes appends as a store would: each chunk once, in order."""

    partitions = 4

    def __init__(self) -> None:
        self.keys = AppKeys("orders", {"k1": bytes(range(32))}, "k1")
        self.app = self.keys.app
        self.chunks: dict[str, list[bytes]] = {}
        self.batches: list[int] = []
        self.closed: list[str] = []
        self.errors: list[FluvialError] = []  # that the next appends answer, instead of taking
        self.lost: int = 0  # how many of the next answers are lost
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()

    def new_run_id(self) -> str:
        return new_run_id(self.partitions)

    async def call(
        self, operation: str, arguments: dict[str, Any], body: bytes = b""
    ) -> tuple[dict[str, Any], bytes]:
        assert operation == "stream_append"
        self.asked.set()
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        taken = self.chunks.setdefault(arguments["name"], [])
        chunks = unpack_events(body)
        assert arguments["first"] <= len(taken), "a gap"
        new = chunks[len(taken) - arguments["first"] :]
        taken += new
        self.batches.append(len(new))
        if arguments["close"]:
            self.closed.append(arguments["name"])
        if self.lost:
            self.lost -= 1
            raise UnavailableError("the answer was lost")
        return {}, b""

    def values(self, name: str = "default") -> list[Any]:
        """What has been taken, opened."""
        keys = self.keys.for_run(RUN)
        place = place_of_chunk(name, REQUEST.id, REQUEST.attempt)
        return [
            decode(keys.open(chunk, "chunk", place, index))
            for index, chunk in enumerate(self.chunks.get(name, []))
        ]


Body = Callable[[AppendingPlatform], Awaitable[None]]


def attempt(body: Body) -> AppendingPlatform:
    """Run a step's body, and what comes at its end."""

    async def main() -> AppendingPlatform:
        platform = AppendingPlatform()
        activate(None, platform)
        async with asyncio.timeout(30), AttemptStreams(REQUEST, platform.keys):
            await body(platform)
        return platform

    return asyncio.run(main())


def test_everything_has_arrived_when_the_step_is_over() -> None:
    values = ["text", b"bytes", 3, {"a": [1]}, None, "x" * 5000]

    async def body(platform: AppendingPlatform) -> None:
        out = fluvial.stream()
        for value in values:
            await out.write(value)
        assert platform.chunks == {}  # nothing left while the step did not wait

    platform = attempt(body)
    assert platform.values() == values
    assert platform.batches == [len(values)]


def test_the_streams_of_an_attempt_are_apart_and_counted_each() -> None:
    async def body(platform: AppendingPlatform) -> None:
        for number in range(3):
            await fluvial.stream("one").write(number)  # a new call is no new writer
            await fluvial.stream("two").write(-number)

    platform = attempt(body)
    assert platform.values("one") == [0, 1, 2]
    assert platform.values("two") == [0, -1, -2]


def test_what_is_written_while_an_append_is_under_way_goes_together() -> None:
    async def body(platform: AppendingPlatform) -> None:
        out = fluvial.stream()
        platform.gate.clear()
        await out.write(0)
        await platform.asked.wait()
        for number in range(1, 10):
            await out.write(number)
        platform.gate.set()

    platform = attempt(body)
    assert platform.values() == list(range(10))
    assert platform.batches == [1, 9]


def test_appends_are_bounded_in_chunks_and_bytes() -> None:
    async def body(_platform: AppendingPlatform) -> None:
        few, large = fluvial.stream("many"), fluvial.stream("large")
        for number in range(MAX_CHUNKS + 1):
            await few.write(number)
        for _ in range(MAX_APPEND_BYTES // MAX_CHUNK_BYTES + 1):
            await large.write(random_bytes(MAX_CHUNK_BYTES - 100))

    platform = attempt(body)
    assert max(platform.batches) == MAX_CHUNKS
    assert len(platform.chunks["large"]) == 5


def random_bytes(size: int) -> bytes:
    """Bytes that do not compress."""
    return Random(size).randbytes(size)


@pytest.mark.parametrize(
    ("value", "most"),
    [("x", MAX_HELD_CHUNKS), (random_bytes(60_000), MAX_HELD_BYTES // 60_000)],
    ids=["many", "large"],
)
def test_a_slow_store_slows_the_step_and_not_its_memory(value: Any, most: int) -> None:
    async def body(platform: AppendingPlatform) -> None:
        written = 0

        async def write() -> None:
            nonlocal written
            out = fluvial.stream()
            for _ in range(2 * most):
                await out.write(value)
                written += 1

        platform.gate.clear()
        writing = asyncio.create_task(write())
        await platform.asked.wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert written <= most
        platform.gate.set()
        await writing

    assert len(attempt(body).chunks["default"]) == 2 * most


def test_drain_waits_until_everything_was_accepted() -> None:
    async def body(platform: AppendingPlatform) -> None:
        out = fluvial.stream()
        await out.write(1)
        platform.gate.clear()
        draining = asyncio.create_task(out.drain())
        await platform.asked.wait()
        assert not draining.done()
        platform.gate.set()
        await draining
        assert platform.values() == [1]

    attempt(body)


def test_a_stream_that_is_only_opened_begins_all_the_same() -> None:
    async def body(_: AppendingPlatform) -> None:
        fluvial.stream()

    platform = attempt(body)
    assert platform.chunks == {"default": []}  # what an earlier execution wrote is void now


def test_closing_goes_with_the_last_chunks() -> None:
    async def body(platform: AppendingPlatform) -> None:
        async with fluvial.stream() as out:
            await out.write(1)
        assert platform.closed == ["default"]
        await out.close()  # again: no harm
        with pytest.raises(StreamClosedError):
            await out.write(2)

    platform = attempt(body)
    assert platform.batches == [1]
    assert platform.closed == ["default"]


def test_a_block_that_fails_does_not_close_its_stream() -> None:
    async def fail() -> None:
        async with fluvial.stream() as out:
            await out.write(1)
            raise ValueError("mine")

    async def body(_: AppendingPlatform) -> None:
        with pytest.raises(ValueError, match="mine"):
            await fail()

    platform = attempt(body)
    assert (platform.values(), platform.closed) == ([1], [])


# ---- faults ----


def test_what_the_platform_cannot_take_now_is_sent_again() -> None:
    async def body(platform: AppendingPlatform) -> None:
        platform.errors = [UnavailableError("away"), UnavailableError("away")]
        platform.lost = 1
        await fluvial.stream().write(1)
        await fluvial.stream().drain()
        await fluvial.stream().write(2)

    assert attempt(body).values() == [1, 2]


def test_patience_with_the_platform_ends() -> None:
    async def main() -> None:
        platform = AppendingPlatform()
        platform.errors = [UnavailableError("away") for _ in range(100)]
        appends = Appends(platform, "s", patience_seconds=0.2)
        appends.add(b"chunk")
        with pytest.raises(UnavailableError, match="away"):
            await appends.drain()
        with pytest.raises(UnavailableError, match="away"):
            appends.add(b"more")

    asyncio.run(main())


def test_a_refusal_is_told_to_whoever_writes_next() -> None:
    async def body(platform: AppendingPlatform) -> None:
        platform.errors = [StreamFullError("full")]
        out = fluvial.stream()
        await out.write(1)
        with pytest.raises(StreamFullError):
            await out.drain()
        for again in (out.write(2), out.drain(), out.close()):
            with pytest.raises(StreamFullError):
                await again

    with pytest.raises(StreamFullError):  # and to the step itself, if it goes on as if nothing was
        attempt(body)


def test_a_refusal_frees_those_who_wait_for_room() -> None:
    async def body(platform: AppendingPlatform) -> None:
        platform.gate.clear()
        platform.errors = [StreamFullError("full")]

        async def write() -> None:
            out = fluvial.stream()
            while True:
                await out.write("x")

        writing = asyncio.create_task(write())
        await platform.asked.wait()
        platform.gate.set()
        with pytest.raises(StreamFullError):
            await writing

    with pytest.raises(StreamFullError):
        attempt(body)


def test_the_last_words_of_a_failing_step_arrive() -> None:
    platforms: list[AppendingPlatform] = []

    async def body(platform: AppendingPlatform) -> None:
        platforms.append(platform)
        await fluvial.stream().write("about to fail")
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        attempt(body)
    assert platforms[0].values() == ["about to fail"]


def test_a_failing_step_s_own_error_stands_and_says_what_was_lost() -> None:
    async def body(platform: AppendingPlatform) -> None:
        platform.errors = [StreamFullError("no room")]
        await fluvial.stream().write("about to fail")
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed") as caught:
        attempt(body)
    assert "no room" in caught.value.__notes__[0]


def test_a_cancelled_step_leaves_nothing_behind() -> None:
    async def main() -> None:
        platform = AppendingPlatform()
        activate(None, platform)
        platform.gate.clear()

        async def step() -> None:
            async with AttemptStreams(REQUEST, platform.keys):
                await fluvial.stream().write(1)
                await fluvial.stream().drain()

        before = asyncio.all_tasks()
        running = asyncio.create_task(step())
        await platform.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert asyncio.all_tasks() == before
        assert platform.chunks == {}

    asyncio.run(main())


def test_a_writer_ends_with_its_step() -> None:
    kept: list[fluvial.StreamWriter] = []

    async def body(_: AppendingPlatform) -> None:
        kept.append(fluvial.stream())

    attempt(body)
    for work in (kept[0].write(1), kept[0].drain(), kept[0].close()):
        with pytest.raises(StreamClosedError, match="the step has ended"):
            asyncio.run(work)


# ---- values and names ----


def test_a_value_that_cannot_be_stored_is_refused_where_it_is_written() -> None:
    async def body(_: AppendingPlatform) -> None:
        out = fluvial.stream()
        with pytest.raises(SerializationError, match=r"chunk\['a'\]"):
            await out.write({"a": object()})
        with pytest.raises(SerializationError, match=f"above the limit of {MAX_CHUNK_BYTES}"):
            await out.write(random_bytes(MAX_CHUNK_BYTES))
        await out.write("fine")

    assert attempt(body).values() == ["fine"]


@pytest.mark.parametrize("name", ["", "with space", "a" * 129, "-dash"])
def test_a_name_that_no_stream_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="a stream's name"):
        fluvial.stream(name)
    with pytest.raises(InvalidRequestError, match="a stream's name"):
        fluvial.blocking_stream(name)


# ---- threads, and steps that no run executes ----


def test_a_thread_of_the_step_writes_with_the_blocking_writer() -> None:
    async def body(platform: AppendingPlatform) -> None:
        def work() -> None:
            with pytest.raises(InvalidRequestError, match="blocking_stream"):
                fluvial.stream()
            with fluvial.blocking_stream() as out:
                for number in range(5):
                    out.write(number)
                out.drain()
                assert platform.values() == [0, 1, 2, 3, 4]
            with pytest.raises(StreamClosedError):
                out.write(5)

        await asyncio.to_thread(work)

    platform = attempt(body)
    assert platform.closed == ["default"]


def test_the_blocking_writer_is_refused_where_it_would_block_the_loop() -> None:
    async def body(_: AppendingPlatform) -> None:
        with pytest.raises(InvalidRequestError, match=r"use fluvial\.stream\(\)"):
            fluvial.blocking_stream()

    attempt(body)


def test_a_step_that_no_run_executes_writes_to_nowhere() -> None:
    async def step() -> str:
        async with fluvial.stream() as out:
            await out.write("gone")
            await out.drain()
            with pytest.raises(SerializationError):
                await out.write(object())
        with pytest.raises(StreamClosedError):
            await out.write("late")
        return "done"

    def sync_step() -> None:
        with fluvial.blocking_stream() as out:
            out.write("gone")
            out.drain()

    assert asyncio.run(step()) == "done"
    sync_step()
