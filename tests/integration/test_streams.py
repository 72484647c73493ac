"""Streams from the step that writes to the reader: dispatcher, runtime, gateway parts and store."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

import fluvial
from fluvial import StreamChunk, StreamReset
from fluvial.errors import StreamClosedError
from fluvial.events import EventType, decode_event
from fluvial.ports import Platform
from fluvial.testing import Mode
from fluvial_gateway.invocations import Subject
from fluvial_queue import open_store
from fluvial_queue.contract import (
    OutcomeUnknownError,
    RunStatus,
    Store,
    StoreUnavailableError,
)
from fluvial_queue.memory import MemoryStore
from fluvial_queue.redis.address import parse_address
from fluvial_queue.redis.link import Link
from fluvial_queue.stream_contract import Append, AppendAnswer
from tests.integration.in_process import Ground, each_mode
from tests.integration.streaming import Streaming

TOKENS = ("What", " a", " day", ".")


class Gates:
    """What the steps of a test wait for."""

    def __init__(self) -> None:
        self.open: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.executions: defaultdict[str, int] = defaultdict(int)
        self.errors: list[BaseException] = []
        self.sung: dict[str, list[str]] = {}  # by singer, in its newest execution

    def reset(self) -> None:
        """Forget everything: events belong to a loop."""
        for kept in (self.open, self.executions, self.errors, self.sung):
            kept.clear()

    async def wait_for(self, name: str) -> None:
        """Wait until it happens once more."""
        self.open[name].clear()
        await self.open[name].wait()


gates = Gates()


class Token(BaseModel):
    text: str
    number: int


@fluvial.step(name="streams.say")
async def say(tokens: list[str], name: str = "tokens") -> int:
    out = fluvial.stream(name)
    for token in tokens:
        await out.write(token)
    gates.open["said"].set()
    return len(tokens)


@fluvial.step(name="streams.sing")
async def sing(singer: int, verses: int) -> None:
    gates.executions[f"sing{singer}"] += 1
    execution = gates.executions[f"sing{singer}"]
    sung: list[str] = []
    gates.sung[str(singer)] = sung
    out = fluvial.stream("tokens")
    for verse in range(verses):
        text = f"{singer}.{execution}.{verse}"
        sung.append(text)
        await out.write(text)
        if verse % 7 == singer:
            await out.drain()
        await asyncio.sleep(0.001 * (verse % 3))
        gates.open["verse"].set()


@fluvial.step(name="streams.say_slowly")
async def say_slowly() -> None:
    out = fluvial.stream("tokens")
    for number, token in enumerate(TOKENS):
        await gates.open[str(number)].wait()
        await out.write(token)


@fluvial.step(name="streams.say_until_cut_off")
async def say_until_cut_off() -> None:
    gates.executions["cut"] += 1
    word = f"try{gates.executions['cut']}"
    out = fluvial.stream("tokens")
    for number in range(3):
        await out.write(f"{word}.{number}")
    await out.drain()
    gates.open["written"].set()
    await gates.open["go on"].wait()
    await out.write(f"{word}.end")


@fluvial.step(name="streams.fail_once", retries=1, backoff=0.01)
async def fail_once() -> None:
    gates.executions["fail"] += 1
    out = fluvial.stream("tokens")
    await out.write(f"attempt {gates.executions['fail']}")
    if gates.executions["fail"] == 1:
        raise ValueError("once")


@fluvial.step(name="streams.too_much", retries=1, backoff=0.01)
async def too_much() -> None:
    out = fluvial.stream("tokens")
    for _ in range(10):
        await out.write(b"x" * 1000)


@fluvial.step(name="streams.say_in_thread")
def say_in_thread(tokens: list[str]) -> str:
    with fluvial.blocking_stream("tokens") as out:
        for token in tokens:
            out.write(token)
    return threading.current_thread().name


@fluvial.step(name="streams.close_early")
async def close_early() -> None:
    async with fluvial.stream("tokens") as out:
        await out.write("all")
    try:
        await fluvial.stream("tokens").write("more")
    except StreamClosedError as error:
        gates.errors.append(error)
    await gates.open["end"].wait()


@fluvial.step(name="streams.typed")
async def typed() -> None:
    out = fluvial.stream()
    for number in range(3):
        await out.write(Token(text="t" * number, number=number))


@fluvial.workflow(name="streams.one")
async def one(step: str, *args: Any) -> Any:
    steps: dict[str, Any] = {
        "say": say,
        "slowly": say_slowly,
        "cut": say_until_cut_off,
        "fail": fail_once,
        "much": too_much,
        "thread": say_in_thread,
        "close": close_early,
        "typed": typed,
    }
    return await steps[step](*args)


@fluvial.workflow(name="streams.choir")
async def choir(singers: int, words: int) -> None:
    await asyncio.gather(
        *(say([f"{singer}.{word}" for word in range(words)]) for singer in range(singers))
    )


@fluvial.workflow(name="streams.ballad")
async def ballad(singers: int, verses: int) -> None:
    for singer in range(0, singers, 2):
        await asyncio.gather(sing(singer, verses), sing(singer + 1, verses))


@fluvial.workflow(name="streams.in_code")
async def in_code() -> None:
    await fluvial.stream().write("not here")


Main = Callable[[Streaming], Awaitable[None]]


class Play(Protocol):
    """Runs a test's coroutine with a store, a dispatcher and instances."""

    def __call__(self, main: Main, *, mode: Mode | None = None) -> Streaming: ...


@pytest.fixture
def play(ground: Ground) -> Play:
    url = ground.url if ground.url == "memory://" else f"{ground.url}&stream_bytes=5000000"

    def play(main: Main, *, mode: Mode | None = None) -> Streaming:
        return run_streaming(open_store(url), main, mode=mode or ground.mode)

    return play


def run_streaming(store: Store, main: Main, *, mode: Mode = "live") -> Streaming:
    async def body() -> Streaming:
        gates.reset()
        await store.open()
        app = Streaming(store, mode=mode)
        await app.dispatcher.start()
        try:
            async with asyncio.timeout(60):
                await main(app)
        finally:
            await app.dispatcher.stop(1.0)
            await store.close()
        return app

    return asyncio.run(body())


async def kinds_of(app: Streaming, run_id: str) -> list[EventType]:
    return [decode_event(e).type for e in await app.store.read_events(run_id, limit=1000)]


async def values_of(app: Streaming, run_id: str, name: str = "tokens", start: int = 0) -> list[Any]:
    return [value async for value in app.run(run_id).stream(name, start=start)]


async def entries_of(app: Streaming, run_id: str, start: int = 0) -> list[Any]:
    reader = app.run(run_id).stream("tokens", start=start)
    return [entry async for entry in reader.entries()]


@each_mode
def test_what_a_step_wrote_is_read_in_order(play: Play, mode: Mode) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "say", list(TOKENS))
        assert await values_of(app, run_id) == list(TOKENS)  # until the run has ended
        assert await app.finish(run_id) == "completed"

        assert await values_of(app, run_id, start=2) == list(TOKENS[2:])
        assert await values_of(app, run_id, start=-1) == [TOKENS[-1]]
        assert await values_of(app, run_id, "never") == []
        (info,) = await app.run(run_id).streams()
        assert (info.name, info.length, info.closed) == ("tokens", len(TOKENS), True)

    play(main, mode=mode)


def test_chunks_are_read_while_the_step_runs(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "slowly")
        reader = aiter(app.run(run_id).stream("tokens"))  # before there is a stream
        heard: list[str] = []
        for number in range(len(TOKENS)):
            gates.open[str(number)].set()
            heard.append(await anext(reader))

        assert tuple(heard) == TOKENS
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    play(main)


def test_what_is_written_in_one_turn_of_the_loop_goes_in_one_append(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "say", [str(number) for number in range(300)])
        assert await app.finish(run_id) == "completed"

        assert app.appended.outcomes == [("accepted", 300)]

    play(main)


def test_an_execution_that_was_cut_off_is_void_once_the_next_one_writes(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "cut")
        following = asyncio.create_task(entries_of(app, run_id))
        plain = asyncio.create_task(values_of(app, run_id))
        await gates.open["written"].wait()
        gates.open["written"].clear()
        assert app.instances.kill_all() == 1
        await gates.open["written"].wait()
        gates.open["go on"].set()
        assert await app.finish(run_id) == "completed"

        again = ["try2.0", "try2.1", "try2.2", "try2.end"]
        assert await values_of(app, run_id) == again
        assert (await plain)[-4:] == again
        entries = await following
        (reset,) = [entry for entry in entries if isinstance(entry, StreamReset)]
        after = [e.value for e in entries if e.position > reset.position]
        assert (reset.since, after) == (0, again)
        assert EventType.ATTEMPT_LOST in await kinds_of(app, run_id)

    play(main)


@each_mode
def test_a_failed_attempt_s_chunks_are_void_once_the_next_one_writes(
    play: Play, mode: Mode
) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "fail")
        assert await app.finish(run_id) == "completed"

        assert await values_of(app, run_id) == ["attempt 2"]
        entries = await entries_of(app, run_id)
        assert [(type(e), e.attempt) for e in entries] == [(StreamReset, 2), (StreamChunk, 2)]

    play(main, mode=mode)


def test_a_stale_execution_cannot_write(play: Play) -> None:
    async def main(app: Streaming) -> None:
        subjects: list[Subject] = []

        def platform(subject: Subject | None) -> Platform:
            subjects.extend([subject] if subject is not None else [])
            return app.platform(subject)

        app.instances.platform = platform
        run_id = await app.start(one, "cut")
        await gates.open["written"].wait()
        gates.open["written"].clear()
        (stale,) = subjects
        app.instances.kill_all()
        await gates.open["written"].wait()
        arguments = {"name": "tokens", "first": 3, "close": False}
        with pytest.raises(StreamClosedError):
            await app.platform(stale).call("stream_append", arguments, b"\x91\xc4\x01x")
        gates.open["go on"].set()
        assert await app.finish(run_id) == "completed"

        assert await values_of(app, run_id) == ["try2.0", "try2.1", "try2.2", "try2.end"]

    play(main)


def test_steps_that_write_together_keep_their_own_order(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(choir, 8, 50)
        by_singer: defaultdict[str, list[str]] = defaultdict(list)
        for value in await values_of(app, run_id):
            singer, _, word = value.partition(".")
            by_singer[singer].append(word)

        assert len(by_singer) == 8
        assert all(words == [str(n) for n in range(50)] for words in by_singer.values())

    play(main)


def test_a_sync_step_writes_from_its_thread(play: Play) -> None:
    async def main(app: Streaming) -> None:
        words = [str(number) for number in range(50)]
        run_id = await app.start(one, "thread", words)
        assert await values_of(app, run_id) == words
        assert (await app.run(run_id).result()).startswith("fluvial-step")

    play(main)


def test_a_closed_stream_ends_its_readers_before_the_run_ends(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "close")
        assert await values_of(app, run_id) == ["all"]
        record = await app.store.read_run(run_id)
        assert record is not None
        assert record.status is RunStatus.RUNNING
        gates.open["end"].set()
        assert await app.finish(run_id) == "completed"
        assert len(gates.errors) == 1

    play(main)


def test_values_come_back_as_their_type(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "typed")
        tokens = [token async for token in app.run(run_id).stream(type=Token)]

        assert tokens == [Token(text="t" * number, number=number) for number in range(3)]

    play(main)


def test_workflow_code_is_told_to_write_in_a_step(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(in_code)
        with pytest.raises(fluvial.RunFailedError, match="write to streams in a step"):
            await app.run(run_id).result()

    play(main)


def test_chunks_are_nowhere_in_the_store_in_clear(valkey_url: str) -> None:
    canary = "canary-7b1f"

    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "say", [canary, canary * 200])
        assert await app.finish(run_id) == "completed"
        stored = await everything(valkey_url)

        assert run_id.encode() in stored  # it is all there, but not in clear
        assert canary.encode() not in stored
        assert await values_of(app, run_id) == [canary, canary * 200]

    run_streaming(open_store(valkey_url), main)


async def everything(url: str) -> bytes:
    """Return all keys of a server with all that is in them."""
    link = Link(parse_address(url))
    await link.open()
    try:
        found: list[bytes] = []
        for key in await link.call(("KEYS", "*"), writes=False):
            kind = (await link.call(("TYPE", key), writes=False)).decode()
            command, *rest = _READS[kind]
            found += [key, repr(await link.call((command, key, *rest), writes=False)).encode()]
    finally:
        await link.close()
    return b"\n".join(found)


_READS = {
    "string": ("GET",),
    "hash": ("HGETALL",),
    "list": ("LRANGE", "0", "-1"),
    "set": ("SMEMBERS",),
    "zset": ("ZRANGE", "0", "-1"),
    "stream": ("XRANGE", "-", "+"),
}


# ---- limits and faults of the store ----


class MoodyStore(MemoryStore):
    """A store whose appends can be held back, fail, or lose their answer."""

    failures = 0
    lost_answers = 0
    gate: asyncio.Event | None = None

    async def append_stream(self, append: Append) -> AppendAnswer:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("a test's")
        answer = await super().append_stream(append)
        if self.lost_answers:
            self.lost_answers -= 1
            raise OutcomeUnknownError("a test's")
        return answer


def test_a_result_waits_until_the_store_has_the_chunks() -> None:
    store = MoodyStore()

    async def main(app: Streaming) -> None:
        store.gate = asyncio.Event()
        run_id = await app.start(one, "say", list(TOKENS))
        await gates.open["said"].wait()
        for _ in range(100):
            await asyncio.sleep(0)
        assert EventType.STEP_COMPLETED not in await kinds_of(app, run_id)
        store.gate.set()

        assert await app.finish(run_id) == "completed"
        assert await values_of(app, run_id) == list(TOKENS)

    run_streaming(store, main)


def test_an_append_is_repeated_until_the_store_is_back() -> None:
    store = MoodyStore()

    async def main(app: Streaming) -> None:
        store.failures, store.lost_answers = 2, 2
        run_id = await app.start(one, "say", list(TOKENS))
        assert await app.finish(run_id) == "completed"

        assert await values_of(app, run_id) == list(TOKENS)
        assert EventType.STEP_RETRYING not in await kinds_of(app, run_id)

    run_streaming(store, main)
    assert (store.failures, store.lost_answers) == (0, 0)


def test_a_run_that_writes_too_much_fails_and_says_the_limit() -> None:
    store = MemoryStore(stream_bytes=5000)

    async def main(app: Streaming) -> None:
        run_id = await app.start(one, "much")
        with pytest.raises(fluvial.RunFailedError, match=r"StreamFullError.*stream_bytes"):
            await app.run(run_id).result()
        assert EventType.STEP_RETRYING in await kinds_of(app, run_id)

    run_streaming(store, main)


# ---- P8: every chunk once, in order, across disconnects and kills ----


@dataclass
class Listener:
    """A reader that goes away at random and comes back where it was."""

    run: fluvial.Run[Any]
    rng: random.Random
    heard: list[StreamChunk[str] | StreamReset] = field(
        default_factory=list[StreamChunk[str] | StreamReset]
    )
    visits: int = 0
    fruitless: int = 0  # visits in a row: on a busy machine it must stay longer to hear anything

    async def listen(self) -> None:
        heard = 0
        while not await self._visit():
            self.visits += 1
            self.fruitless = 0 if len(self.heard) > heard else self.fruitless + 1
            heard = len(self.heard)

    async def _visit(self) -> bool:
        start = self.heard[-1].position + 1 if self.heard else 0
        left = self.rng.randint(1, 30)
        try:
            async with asyncio.timeout(self.rng.uniform(0.0, 0.05) * (1 + self.fruitless)):
                async for entry in self.run.stream("tokens", start=start).entries():
                    self.heard.append(entry)
                    left -= 1
                    if not left:
                        return False
        except TimeoutError:
            return False
        return True

    def valid(self) -> list[str]:
        """What is left once every reset is heeded."""
        chunks: list[StreamChunk[str]] = []
        for entry in self.heard:
            if isinstance(entry, StreamChunk):
                chunks.append(entry)
            else:
                chunks = [
                    chunk
                    for chunk in chunks
                    if chunk.step_id != entry.step_id or chunk.position < entry.since
                ]
        return [chunk.value for chunk in chunks]


@pytest.mark.parametrize("seed", [1, 2])
def test_readers_have_every_chunk_once_and_in_order(play: Play, seed: int) -> None:
    rng = random.Random(seed)

    async def main(app: Streaming) -> None:
        run_id = await app.start(ballad, 6, 60)
        listeners = [Listener(app.run(run_id), random.Random(rng.random())) for _ in range(50)]
        async with asyncio.TaskGroup() as tasks:
            for listener in listeners:
                tasks.create_task(listener.listen())
            for kill in range(1, 5):
                while len(app.appended.outcomes) < 15 * kill:
                    await gates.wait_for("verse")
                assert app.instances.kill_all()
            assert await app.finish(run_id) == "completed"

        whole = await values_of(app, run_id)
        by_singer: defaultdict[str, list[str]] = defaultdict(list)
        for value in whole:
            by_singer[value.partition(".")[0]].append(value)
        assert dict(by_singer) == gates.sung
        for listener in listeners:
            positions = [entry.position for entry in listener.heard]
            assert positions == sorted(set(positions))
            assert listener.valid() == whole
        assert sum(listener.visits for listener in listeners) > 100
        assert (await kinds_of(app, run_id)).count(EventType.ATTEMPT_LOST) > 3

    play(main)
