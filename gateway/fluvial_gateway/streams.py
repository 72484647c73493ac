"""Streams of runs: takes in what steps write, and lets readers wait for more.

A reader is woken by an append that this gateway takes in, by the store's doorbell for those of
others, by the end of the run, or by a slow sweep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from fluvial.errors import RunNotFoundError
from fluvial.ids import partition_of
from fluvial.stream_entries import MAX_CHUNKS
from fluvial_gateway.invocations import Subject
from fluvial_gateway.runs import definite
from fluvial_gateway.stream_watches import StreamWatch, StreamWatches
from fluvial_queue.contract import Bell
from fluvial_queue.stream_contract import (
    Append,
    AppendOutcome,
    StreamPage,
    StreamRecord,
    StreamStore,
    StreamWriter,
    check_answer,
)

SWEEP_SECONDS: Final = 10.0  # how late a lost doorbell can make a reader


class StreamObserver(Protocol):
    """Counts what is written; metrics live elsewhere."""

    def stream_appended(self, app: str, outcome: str, chunks: int, size: int) -> None:
        """Chunks of `size` bytes together were taken in, or refused."""
        ...


class Streams:
    """The streams of all runs."""

    def __init__(self, store: StreamStore, observer: StreamObserver, *, partitions: int) -> None:
        self._store = store
        self._observer = observer
        self._partitions = partitions
        self._watches = StreamWatches()

    @property
    def waiting(self) -> int:
        """How many readers wait."""
        return self._watches.waiting

    def heard(self, bell: Bell) -> None:
        """Wake the readers that a bell of the store concerns."""
        if bell.kind in ("stream", "finished"):
            self._watches.changed(bell.run_id)
        elif bell.kind == "lost":
            self._watches.all_changed()

    async def append(
        self,
        app: str,
        subject: Subject,
        *,
        name: str,
        first: int,
        chunks: Sequence[bytes],
        close: bool,
    ) -> None:
        """Take in chunks that an execution of a step wrote; what was taken in before changes
        nothing.

        Raises:
            StreamClosedError, StreamFullError, RunNotFoundError, InvalidRequestError
        """
        append = Append(
            run_id=subject.run_id,
            name=name,
            writer=StreamWriter(
                step_id=subject.step_id, attempt=subject.attempt, message_id=subject.message_id
            ),
            first=first,
            chunks=tuple(chunks),
            close=close,
        )
        answer = await definite(lambda: self._store.append_stream(append))
        size = sum(map(len, chunks))
        self._observer.stream_appended(app, answer.outcome.value, len(chunks), size)
        if answer.outcome is AppendOutcome.ACCEPTED:
            self._watches.changed(subject.run_id)
        check_answer(append, answer)

    async def read(
        self,
        run_id: str,
        name: str,
        *,
        start: int,
        limit: int = MAX_CHUNKS,
        wait_seconds: float = 0.0,
        app: str | None = None,
    ) -> StreamPage:
        """Return a part of a stream; an empty one only if nothing was added in `wait_seconds`, or
        nothing ever will be.

        Raises:
            RunNotFoundError: there is no such run, or with `app`, it is another app's.
        """
        if wait_seconds <= 0:
            return _checked(run_id, app, await self._page(run_id, name, start, limit))
        with self._watches.of(run_id) as watch, watch.waited() as woken:
            page = watch.end_of(name, start)
            if page is None:
                page = await self._shared(watch, run_id, name, start, limit)
            page = _checked(run_id, app, page)
            try:
                async with asyncio.timeout(wait_seconds):
                    while not _has_news(page):
                        await _wait(woken)
                        found = await self._shared(watch, run_id, name, page.next, limit)
                        page = _checked(run_id, app, found)
            except TimeoutError:
                return page
            return page

    async def records(self, run_id: str) -> list[StreamRecord]:
        """Return a run's streams in the order in which they were made.

        Raises:
            RunNotFoundError: there is no such run.
        """
        records = await self._store.list_streams(run_id)
        if records is None:
            raise RunNotFoundError(run_id)
        return records

    async def _page(self, run_id: str, name: str, start: int, limit: int) -> StreamPage | None:
        if partition_of(run_id) >= self._partitions:
            return None
        return await self._store.read_stream(run_id, name, start=start, limit=limit)

    async def _shared(
        self, watch: StreamWatch, run_id: str, name: str, start: int, limit: int
    ) -> StreamPage | None:
        read = partial(self._page, run_id, name, start, limit)
        return await watch.read((name, start, limit), read)


def _checked(run_id: str, app: str | None, page: StreamPage | None) -> StreamPage:
    if page is None or app not in (None, page.app):
        raise RunNotFoundError(run_id)
    return page


async def _wait(woken: asyncio.Event) -> None:
    try:
        await asyncio.wait_for(woken.wait(), SWEEP_SECONDS)
    except TimeoutError:
        return  # look anyway: a doorbell may have been lost
    finally:
        woken.clear()


def _has_news(page: StreamPage) -> bool:
    return bool(page.entries) or page.closed or page.next < page.length
