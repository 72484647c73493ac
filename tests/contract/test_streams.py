"""Streams: fenced by the execution's message, each chunk once and in order, closed with the run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.ids import new_run_id
from fluvial.stream_entries import (
    MAX_APPEND_BYTES,
    MAX_CHUNKS,
    MAX_SEALED_CHUNK_BYTES,
    StreamEntry,
)
from fluvial_queue import Store
from fluvial_queue.contract import DeleteOutcome, RunStatus
from fluvial_queue.stream_contract import (
    ENTRY_BYTES,
    MAX_STREAMS,
    Append,
    AppendAnswer,
    AppendOutcome,
    StreamPage,
    StreamRecord,
    StreamWriter,
)

if TYPE_CHECKING:
    from tests.contract.conftest import Backend, OwnedRun

ACCEPTED, DUPLICATE, STALE = AppendOutcome.ACCEPTED, AppendOutcome.DUPLICATE, AppendOutcome.STALE
CLOSED, GAP, FULL = AppendOutcome.CLOSED, AppendOutcome.GAP, AppendOutcome.FULL


class Execution:
    """One execution of a step, for as long as its message exists."""

    def __init__(self, run: OwnedRun, step_id: int = 1, attempt: int = 1) -> None:
        self.run = run
        self.writer = StreamWriter(step_id=step_id, attempt=attempt, message_id=run.handle)

    async def append(
        self, first: int, *chunks: bytes, name: str = "s", close: bool = False
    ) -> AppendAnswer:
        return await self.run.store.append_stream(
            Append(
                run_id=self.run.run_id,
                name=name,
                writer=self.writer,
                first=first,
                chunks=chunks,
                close=close,
            )
        )

    async def over(self, **changes: Any) -> Execution:
        """Commit that it was cut off, and return the execution that follows."""
        await self.run.commit(messages=(b"again",), **changes)
        return Execution(self.run, self.writer.step_id, self.writer.attempt + 1)


async def execution(backend: Backend, store: Store, **changes: Any) -> Execution:
    """A run with one step under way."""
    return Execution(await backend.owned_run(store, **changes))


async def read(run: OwnedRun, start: int = 0, name: str = "s", **limits: int) -> StreamPage:
    page = await run.store.read_stream(run.run_id, name, start=start, **limits)
    assert page is not None
    return page


def texts(page: StreamPage) -> list[str]:
    """The payloads; a reset as `<since`."""
    return [f"<{e.since}" if e.since is not None else e.payload.decode() for e in page.entries]


def test_chunks_are_read_as_they_were_written(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        before_ms = await store.now_ms()
        assert await step.append(0, b"a", b"b") == AppendAnswer(ACCEPTED, 2)
        assert await step.append(2, b"") == AppendAnswer(ACCEPTED, 3)
        page = await read(step.run)

        assert [replace(entry, at_ms=0) for entry in page.entries] == [
            StreamEntry(position=i, step_id=1, attempt=1, index=i, at_ms=0, payload=payload)
            for i, payload in enumerate((b"a", b"b", b""))
        ]
        assert all(entry.at_ms >= before_ms for entry in page.entries)
        assert (page.next, page.length, page.closed) == (3, 3, False)

    backend.run(main)


def test_steps_share_a_stream_in_the_order_of_their_appends(backend: Backend) -> None:
    async def main(store: Store) -> None:
        one = await execution(backend, store)
        other = Execution(one.run, step_id=2)
        await one.append(0, b"a0")
        await other.append(0, b"b0", b"b1")
        await one.append(1, b"a1")
        page = await read(one.run)

        assert texts(page) == ["a0", "b0", "b1", "a1"]
        assert [(e.step_id, e.index) for e in page.entries] == [(1, 0), (2, 0), (2, 1), (1, 1)]

    backend.run(main)


def test_streams_of_a_run_are_apart(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        other = await execution(backend, store)
        await step.append(0, b"tokens", name="tokens")
        await step.append(0, b"log", name="log.1:a/b")
        await other.append(0, b"another run's", name="tokens")

        assert texts(await read(step.run, name="tokens")) == ["tokens"]
        assert texts(await read(step.run, name="log.1:a/b")) == ["log"]
        assert await store.list_streams(step.run.run_id) == [
            StreamRecord(name="tokens", length=1, bytes=6, closed=False),
            StreamRecord(name="log.1:a/b", length=1, bytes=3, closed=False),
        ]

    backend.run(main)


# ---- each chunk once, in order ----


def test_what_was_accepted_before_changes_nothing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a", b"b")

        assert await step.append(0, b"a", b"b") == AppendAnswer(DUPLICATE, 2)
        assert await step.append(1, b"b") == AppendAnswer(DUPLICATE, 2)
        assert await step.append(1, b"b", b"c") == AppendAnswer(ACCEPTED, 3)
        assert texts(await read(step.run)) == ["a", "b", "c"]

    backend.run(main)


def test_a_gap_is_refused(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        assert await step.append(1, b"b") == AppendAnswer(GAP, 0)
        await step.append(0, b"a")

        assert await step.append(2, b"c") == AppendAnswer(GAP, 1)
        assert texts(await read(step.run)) == ["a"]

    backend.run(main)


def test_racing_appends_of_one_chunk_are_accepted_once(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        answers = await asyncio.gather(*[step.append(0, b"a") for _ in range(20)])

        outcomes = [answer.outcome for answer in answers]
        assert (outcomes.count(ACCEPTED), outcomes.count(DUPLICATE)) == (1, 19)
        assert texts(await read(step.run)) == ["a"]

    backend.run(main)


# ---- the fence ----


def test_an_execution_whose_message_is_gone_is_stale(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a")
        await step.over()

        assert await step.append(1, b"b") == AppendAnswer(STALE)
        assert await step.append(0, b"a") == AppendAnswer(STALE)
        assert await step.append(0, b"x", name="new") == AppendAnswer(STALE)
        assert texts(await read(step.run)) == ["a"]

    backend.run(main)


def test_another_run_s_message_is_no_pass(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store, run_id="run_00" + "a" * 24)
        other = await execution(backend, store, run_id="run_00" + "b" * 24)
        other.writer = step.writer

        assert await other.append(0, b"a") == AppendAnswer(STALE)

    backend.run(main)


def test_the_older_of_two_messages_of_a_step_is_stale_once_the_younger_wrote(
    backend: Backend,
) -> None:
    async def main(store: Store) -> None:
        run = await backend.owned_run(store)
        await run.commit(messages=tuple(b"m%d" % number for number in range(12)))
        messages = await run.messages()
        older, younger = Execution(run), Execution(run)
        older.writer = replace(older.writer, message_id=messages[2].id)
        younger.writer = replace(younger.writer, message_id=messages[11].id)
        await older.append(0, b"old")
        await younger.append(0, b"new")

        assert await older.append(1, b"late") == AppendAnswer(STALE)
        assert texts(await read(run)) == ["<0", "new"]

    backend.run(main)


# ---- resets ----


def test_a_later_execution_voids_what_an_earlier_one_wrote(backend: Backend) -> None:
    async def main(store: Store) -> None:
        first = await execution(backend, store)
        await first.append(0, b"a", b"b")
        assert texts(await read(first.run)) == ["a", "b"]
        second = await first.over()
        assert texts(await read(first.run)) == ["a", "b"]  # until it begins
        assert await second.append(0, b"A") == AppendAnswer(ACCEPTED, 1)
        page = await read(first.run)

        assert texts(page) == ["<0", "A"]
        assert [(e.position, e.attempt, e.index) for e in page.entries] == [(2, 2, 0), (3, 2, 0)]
        assert (page.next, page.length) == (4, 4)
        assert texts(await read(first.run, start=2)) == ["<0", "A"]  # for a reader who had both

    backend.run(main)


def test_beginning_without_a_chunk_voids_too(backend: Backend) -> None:
    async def main(store: Store) -> None:
        first = await execution(backend, store)
        await first.append(0, b"a")
        second = await first.over()
        assert await second.append(0) == AppendAnswer(ACCEPTED, 0)
        assert await second.append(0) == AppendAnswer(DUPLICATE, 0)
        assert texts(await read(first.run)) == ["<0"]
        third = await second.over()
        await third.append(0, b"c")

        assert texts(await read(first.run)) == ["<0", "c"]  # the second one wrote nothing

    backend.run(main)


def test_a_reset_voids_nothing_of_other_steps(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.run.commit(messages=(b"one", b"two"))
        one, two = [
            replace(step.writer, step_id=number, message_id=message.id)
            for number, message in enumerate(await step.run.messages(), start=1)
        ]
        step.writer = two
        await step.append(0, b"two")
        step.writer = one
        await step.append(0, b"one")
        again = await step.over(handled=(one.message_id,))
        await again.append(0, b"One")
        page = await read(step.run)

        assert texts(page) == ["two", "<1", "One"]
        step.writer = two
        assert await step.append(1, b"more") == AppendAnswer(ACCEPTED, 2)

    backend.run(main)


def test_every_execution_counts_from_zero(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        for round_number in range(4):
            for index in range(3):
                answer = await step.append(index, b"%d%d" % (round_number, index))
                assert answer == AppendAnswer(ACCEPTED, index + 1)
            step = await step.over()

        assert texts(await read(step.run)) == ["<0", "<4", "<8", "30", "31", "32"]

    backend.run(main)


# ---- closing ----


def test_a_closed_stream_takes_nothing_more(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        other = Execution(step.run, step_id=2)
        await other.append(0, b"x")
        assert await step.append(0, b"a", close=True) == AppendAnswer(ACCEPTED, 1)

        assert await step.append(0, b"a", close=True) == AppendAnswer(DUPLICATE, 1)
        assert await step.append(1, b"b") == AppendAnswer(CLOSED, 1)
        assert await other.append(1, b"y") == AppendAnswer(CLOSED, 1)
        assert await other.append(0, b"x") == AppendAnswer(DUPLICATE, 1)
        page = await read(step.run)
        assert (texts(page), page.closed) == (["x", "a"], True)
        assert (await read(step.run, limit=1)).closed is False  # there is more to read
        listed = await store.list_streams(step.run.run_id)
        assert listed == [StreamRecord(name="s", length=2, bytes=2, closed=True)]

    backend.run(main)


def test_closing_alone_is_idempotent(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a")
        assert await step.append(1, close=True) == AppendAnswer(ACCEPTED, 1)

        assert await step.append(1, close=True) == AppendAnswer(DUPLICATE, 1)
        assert (await read(step.run)).closed

    backend.run(main)


def test_the_execution_that_follows_opens_the_stream_again(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a", close=True)
        again = await step.over()
        assert await again.append(0, b"A") == AppendAnswer(ACCEPTED, 1)
        page = await read(step.run)

        assert (texts(page), page.closed) == (["<0", "A"], False)

    backend.run(main)


def test_the_end_of_the_run_closes_its_streams(backend: Backend) -> None:
    async def main(store: Store) -> None:
        for status in (s for s in RunStatus if s.is_terminal):
            step = await execution(backend, store)
            await step.append(0, b"a")
            await step.run.commit(status=status)

            page = await read(step.run)
            assert (texts(page), page.closed) == (["a"], True)
            assert (await read(step.run, name="never")).closed
            assert await step.append(1, b"b") == AppendAnswer(CLOSED)
            listed = await store.list_streams(step.run.run_id)
            assert listed == [StreamRecord(name="s", length=1, bytes=1, closed=True)]

    backend.run(main)


def test_a_paused_run_s_step_goes_on_writing(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.run.commit(handled=(), status=RunStatus.PAUSED)

        assert await step.append(0, b"a") == AppendAnswer(ACCEPTED, 1)

    backend.run(main)


# ---- reading ----


def test_pages_go_on_where_the_last_one_ended(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, *[b"%d" % number for number in range(10)])
        page = await read(step.run, limit=4)
        assert (texts(page), page.next, page.length) == (["0", "1", "2", "3"], 4, 10)
        page = await read(step.run, start=page.next, limit=MAX_CHUNKS)

        assert (texts(page), page.next) == (["4", "5", "6", "7", "8", "9"], 10)
        assert texts(await read(step.run, start=-3)) == ["7", "8", "9"]
        assert texts(await read(step.run, start=-100)) == [str(number) for number in range(10)]
        beyond = await read(step.run, start=99)
        assert (beyond.entries, beyond.next, beyond.length) == ((), 99, 10)

    backend.run(main)


def test_a_page_of_void_chunks_is_empty_and_has_a_next(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, *[b"void"] * 10)
        await (await step.over()).append(0, b"new")
        page = await read(step.run, limit=5)

        assert (page.entries, page.next, page.length) == ((), 5, 12)

    backend.run(main)


def test_a_page_is_bounded_in_bytes_but_never_empty(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        large = bytes(MAX_SEALED_CHUNK_BYTES)
        for number in range(5):
            assert (await step.append(number, large)).outcome is ACCEPTED
        page = await read(step.run)
        rest = await read(step.run, start=page.next)

        assert (len(page.entries), len(rest.entries)) == (3, 2)
        assert MAX_APPEND_BYTES // len(large) == 3

    backend.run(main)


def test_a_stream_that_does_not_exist_is_empty(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        page = await read(step.run)

        assert page == StreamPage(app="shop", entries=(), next=0, length=0, closed=False)
        assert (await read(step.run, start=-5)).next == 0
        assert await store.list_streams(step.run.run_id) == []

    backend.run(main)


def test_an_unknown_run_has_no_streams(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        step.run.run_id = new_run_id(backend.partitions)

        assert await step.append(0, b"a") == AppendAnswer(AppendOutcome.UNKNOWN)
        assert await store.read_stream(step.run.run_id, "s", start=0) is None
        assert await store.list_streams(step.run.run_id) is None

    backend.run(main)


# ---- limits ----


def test_a_run_has_a_limit_of_bytes(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        part = bytes(backend.stream_bytes // 16 - ENTRY_BYTES)
        for number in range(15):
            assert (await step.append(number, part)).outcome is ACCEPTED
        assert await step.append(15, part + b"x") == AppendAnswer(FULL, 15)
        assert await step.append(0, part, name="t") == AppendAnswer(ACCEPTED, 1)
        assert await step.append(1, b"", name="t") == AppendAnswer(FULL, 1)

        assert await step.append(14, part) == AppendAnswer(DUPLICATE, 15)
        assert await step.append(15, close=True) == AppendAnswer(ACCEPTED, 15)
        assert (await read(step.run)).length == 15

    backend.run(main)


def test_a_run_has_a_limit_of_streams(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        names = [f"stream-{number}" for number in range(MAX_STREAMS)]
        for name in names:
            assert (await step.append(0, name=name)).outcome is ACCEPTED
        assert (await step.append(0, b"a", name="more")).outcome is AppendOutcome.TOO_MANY

        assert (await step.append(0, b"a", name=names[-1])).outcome is ACCEPTED
        listed = await store.list_streams(step.run.run_id)
        assert [stream.name for stream in listed or ()] == names

    backend.run(main)


def test_what_no_store_takes_is_refused_before_it_is_asked(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        for name in ("", "-a", "a b", "ä", "a\0b", "a" * 129):
            with pytest.raises(InvalidRequestError, match="name"):
                await step.append(0, b"a", name=name)
            with pytest.raises(InvalidRequestError, match="name"):
                await store.read_stream(step.run.run_id, name, start=0)
        with pytest.raises(InvalidRequestError, match="chunks in one append"):
            await step.append(0, *[b""] * (MAX_CHUNKS + 1))
        with pytest.raises(InvalidRequestError, match="a chunk of"):
            await step.append(0, bytes(MAX_SEALED_CHUNK_BYTES + 1))
        with pytest.raises(InvalidRequestError, match="bytes in one append"):
            await step.append(0, *[bytes(MAX_SEALED_CHUNK_BYTES)] * 4)
        with pytest.raises(InvalidRequestError, match="negative"):
            await step.append(-1, b"a")
        for limit in (0, MAX_CHUNKS + 1):
            with pytest.raises(InvalidRequestError, match="limit"):
                await store.read_stream(step.run.run_id, "s", start=0, limit=limit)

        assert await store.list_streams(step.run.run_id) == []

    backend.run(main)


# ---- lifetime and bells ----


def test_streams_expire_with_their_run(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a")
        await step.run.commit(status=RunStatus.COMPLETED)
        now_ms = await store.now_ms()
        await backend.reach(store, now_ms + 2001)
        assert await store.read_stream(step.run.run_id, "s", start=0) is None
        again = await backend.owned_run(store, run_id=step.run.run_id)

        assert await store.list_streams(again.run_id) == []  # nothing is left behind

    backend.run(main)


def test_streams_outlive_their_run_s_end_as_long_as_its_effects(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a")
        ended = await step.run.commit(effects=(b"effect",), status=RunStatus.COMPLETED)
        await backend.reach(store, await store.now_ms() + 2001)
        assert texts(await read(step.run)) == ["a"]
        await step.run.commit(handled=ended.message_ids)
        await backend.reach(store, await store.now_ms() + 2001)

        assert await store.read_stream(step.run.run_id, "s", start=0) is None

    backend.run(main)


def test_a_deleted_run_leaves_no_streams(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        await step.append(0, b"a")
        await step.run.commit(status=RunStatus.COMPLETED)
        assert await store.delete_run(step.run.run_id) is DeleteOutcome.DELETED
        again = await backend.owned_run(store, run_id=step.run.run_id)

        assert await store.list_streams(again.run_id) == []

    backend.run(main)


def test_an_append_rings_for_other_views(backend: Backend) -> None:
    async def main(store: Store) -> None:
        step = await execution(backend, store)
        other = await backend.view()
        bells = other.bells()
        assert (await anext(bells)).kind == "lost"
        await step.append(0, b"a")
        await step.append(0, b"a")  # nothing new
        await step.append(1, close=True)
        heard = [await anext(bells), await anext(bells)]
        await step.run.commit(status=RunStatus.COMPLETED)
        heard.append(await anext(bells))

        assert [bell.kind for bell in heard] == ["stream", "stream", "finished"]
        assert {bell.run_id for bell in heard} == {step.run.run_id}

    backend.run(main)
