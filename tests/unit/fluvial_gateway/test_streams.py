"""The gateway's streams: who is woken when, and how refusals are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from fluvial.errors import (
    FluvialError,
    InvalidRequestError,
    RunNotFoundError,
    StreamClosedError,
    StreamFullError,
)
from fluvial.ids import new_run_id, partition_of
from fluvial.stream_entries import MAX_CHUNKS
from fluvial_gateway.invocations import Subject
from fluvial_gateway.stream_watches import MAX_IDLE, StreamWatches
from fluvial_gateway.streams import Streams
from fluvial_queue import MemoryStore
from fluvial_queue.contract import Bell, CommitEntry, RunStatus, StartRun
from fluvial_queue.stream_contract import MAX_STREAMS, StreamPage


@dataclass
class Counts:
    appended: list[tuple[str, str, int, int]] = field(
        default_factory=list[tuple[str, str, int, int]]
    )

    def stream_appended(self, app: str, outcome: str, chunks: int, size: int) -> None:
        self.appended.append((app, outcome, chunks, size))


class World:
    """A run with one step under way."""

    def __init__(self, stream_bytes: int = 10_000) -> None:
        self.counts = Counts()
        self.use(MemoryStore(partitions=4, stream_bytes=stream_bytes))
        self.run_id = new_run_id(4)
        self.subject = Subject(run_id=self.run_id, step_id=1, attempt=1, message_id="")

    def use(self, store: MemoryStore) -> None:
        self.store = store
        self.streams = Streams(store, self.counts, partitions=4)

    async def open(self) -> None:
        await self.store.open()
        await self.store.start(
            StartRun(
                run_id=self.run_id, app="shop", workflow="w", deployment="dpl_1", input=b"sealed"
            )
        )
        lease = await self.store.acquire(partition_of(self.run_id), owner="o", ttl_ms=60_000)
        assert lease is not None
        self.lease = lease
        window = await self.store.window(lease, after="", limit=9)
        assert window is not None
        self.subject = Subject(run_id=self.run_id, step_id=1, attempt=1, message_id=window[0].id)

    async def append(
        self, first: int, *chunks: bytes, name: str = "s", close: bool = False
    ) -> None:
        await self.streams.append(
            "shop", self.subject, name=name, first=first, chunks=chunks, close=close
        )

    async def read(self, start: int = 0, seconds: float = 20.0) -> StreamPage:
        return await self.streams.read(self.run_id, "s", start=start, wait_seconds=seconds)

    async def end(self) -> None:
        entry = CommitEntry(
            run_id=self.run_id,
            handled=(self.subject.message_id,),
            base=0,
            status=RunStatus.COMPLETED,
        )
        await self.store.commit(self.lease, [entry])


def play(main: Callable[[World], Awaitable[None]], stream_bytes: int = 10_000) -> World:
    async def bounded() -> World:
        world = World(stream_bytes)
        async with asyncio.timeout(10):
            await world.open()
            await main(world)
        return world

    return asyncio.run(bounded())


async def begun(work: Awaitable[StreamPage]) -> asyncio.Future[StreamPage]:
    """Start a reader, and return once it waits."""
    reading = asyncio.ensure_future(work)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not reading.done()
    return reading


def test_an_append_wakes_those_who_read_the_run() -> None:
    async def main(world: World) -> None:
        readers = [await begun(world.read()) for _ in range(3)]
        await world.append(0, b"a", b"bc")
        for reader in readers:
            assert [entry.payload for entry in (await reader).entries] == [b"a", b"bc"]

    assert play(main).counts.appended == [("shop", "accepted", 2, 3)]


@pytest.mark.parametrize("kind", ["stream", "lost"])
def test_a_bell_wakes_those_who_read_what_another_gateway_took(kind: str) -> None:
    async def main(world: World) -> None:
        other = Streams(world.store.view(), world.counts, partitions=4)
        reading = await begun(world.read())
        world.streams, streams = other, world.streams
        await world.append(0, b"a")
        assert not reading.done()
        bell = Bell("stream", run_id=world.run_id) if kind == "stream" else Bell("lost")
        streams.heard(bell)

        assert len((await reading).entries) == 1

    play(main)


def test_the_end_of_the_run_ends_a_reader() -> None:
    async def main(world: World) -> None:
        reading = await begun(world.read())
        await world.end()
        world.streams.heard(Bell("finished", run_id=world.run_id))

        assert (await reading).closed

    play(main)


def test_a_close_ends_a_reader() -> None:
    async def main(world: World) -> None:
        reading = await begun(world.read())
        await world.append(0, close=True)
        page = await reading

        assert (page.entries, page.closed) == ((), True)

    play(main)


def test_a_reader_of_another_run_or_stream_goes_on_waiting() -> None:
    async def main(world: World) -> None:
        reading = await begun(world.read())
        world.streams.heard(Bell("stream", run_id=new_run_id(4)))
        await world.append(0, b"a", name="other")
        for _ in range(10):
            await asyncio.sleep(0)
        assert not reading.done()
        await world.append(0, b"a")
        assert len((await reading).entries) == 1

    play(main)


def test_a_wait_ends_with_an_empty_page_when_its_time_is_up() -> None:
    async def main(world: World) -> None:
        page = await world.read(seconds=0.01)
        assert (page.entries, page.closed) == ((), False)
        page = await world.read(start=-3, seconds=0.0)
        assert page.next == 0

    play(main)


def test_who_does_not_wait_any_more_is_forgotten() -> None:
    async def main(world: World) -> None:
        reading = await begun(world.read())
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await world.append(0, b"a")
        assert len((await world.read()).entries) == 1

        assert world.streams.waiting == 0

    play(main)


def test_another_app_s_run_does_not_exist() -> None:
    async def main(world: World) -> None:
        with pytest.raises(RunNotFoundError):
            await world.streams.read(world.run_id, "s", start=0, app="other")
        for run_id in (new_run_id(4), "run_zz" + "a" * 24):
            with pytest.raises(RunNotFoundError):
                await world.streams.read(run_id, "s", start=0)
        with pytest.raises(RunNotFoundError):
            await world.streams.records(new_run_id(4))

    play(main)


def test_refusals_are_told_by_their_class() -> None:
    async def refused(world: World, first: int, *chunks: bytes, name: str = "s") -> FluvialError:
        with pytest.raises(FluvialError) as caught:
            await world.append(first, *chunks, name=name)
        return caught.value

    async def main(world: World) -> None:
        assert isinstance(await refused(world, 3, b"x"), InvalidRequestError)
        full = await refused(world, 0, bytes(20_000))
        assert isinstance(full, StreamFullError)
        assert "stream_bytes" in str(full)
        await world.append(0, b"a", close=True)
        await world.append(0, b"a", close=True)
        assert isinstance(await refused(world, 1, b"b"), StreamClosedError)
        for number in range(MAX_STREAMS - 1):
            await world.append(0, name=f"s{number}")
        assert isinstance(await refused(world, 0, name="more"), StreamFullError)
        subject = world.subject
        world.subject = Subject(run_id=world.run_id, step_id=1, attempt=1, message_id="1-1")
        assert isinstance(await refused(world, 0, b"x"), StreamClosedError)
        world.subject = Subject(
            run_id=new_run_id(4), step_id=1, attempt=1, message_id=subject.message_id
        )
        assert isinstance(await refused(world, 0, b"x"), RunNotFoundError)

    outcomes = {outcome for _, outcome, _, _ in play(main).counts.appended}
    assert outcomes == {
        *("accepted", "duplicate", "gap", "full", "closed", "too_many", "stale", "unknown"),
    }


# ---- what readers share ----


class CountingStore(MemoryStore):
    """A store that counts its answers to readers, and can keep them back."""

    def __init__(self) -> None:
        super().__init__(partitions=4)
        self.reads = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_stream(
        self, run_id: str, name: str, *, start: int, limit: int = MAX_CHUNKS
    ) -> StreamPage | None:
        self.reads += 1
        page = await super().read_stream(run_id, name, start=start, limit=limit)
        await self.gate.wait()  # the answer is on its way
        return page


def test_readers_of_the_same_page_ask_the_store_once() -> None:
    async def main(world: World) -> None:
        store = CountingStore()
        world.use(store)
        await world.open()
        readers = [await begun(world.read()) for _ in range(20)]
        assert store.reads == 1
        await world.append(0, b"a")
        pages = await asyncio.gather(*readers)

        assert store.reads == 2
        assert all(page is pages[0] for page in pages)

    play(main)


def test_a_reader_at_the_known_end_waits_without_asking() -> None:
    async def main(world: World) -> None:
        store = CountingStore()
        world.use(store)
        await world.open()
        await world.append(0, b"a")
        await world.read()
        reads = store.reads
        reading = await begun(world.read(start=1))
        assert store.reads == reads
        await world.append(1, b"b")

        assert [entry.payload for entry in (await reading).entries] == [b"b"]
        assert store.reads == reads + 1

    play(main)


def test_what_was_asked_before_a_change_is_not_shared_with_who_asks_after() -> None:
    async def main(world: World) -> None:
        store = CountingStore()
        world.use(store)
        await world.open()
        store.gate.clear()
        early = await begun(world.read())  # the store has said "nothing yet", unheard
        await world.append(0, b"a")
        late = await begun(world.read())
        store.gate.set()

        assert len((await late).entries) == 1
        assert len((await early).entries) == 1  # woken meanwhile: it has looked again

    play(main)


def test_a_known_end_is_another_app_s_secret() -> None:
    async def main(world: World) -> None:
        await world.read(seconds=0.01)
        with pytest.raises(RunNotFoundError):
            await world.streams.read(world.run_id, "s", start=0, wait_seconds=1.0, app="other")

    play(main)


def test_who_shares_a_question_may_leave_without_the_answer_of_the_others() -> None:
    async def main(world: World) -> None:
        store = CountingStore()
        world.use(store)
        await world.open()
        await world.append(0, b"a")
        store.gate.clear()
        leaving, staying = await begun(world.read()), await begun(world.read())
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        store.gate.set()

        assert len((await staying).entries) == 1

    play(main)


def test_watches_of_runs_that_nobody_reads_are_bounded() -> None:
    watches = StreamWatches()
    with watches.of("kept") as kept, kept.waited():
        for number in range(MAX_IDLE + 10):
            with watches.of(f"run_{number}"):
                pass
        with watches.of("kept") as again:
            assert again is kept
    with watches.of("run_0") as first, first.waited():
        watches.changed("run_0")
        assert watches.waiting == 1
