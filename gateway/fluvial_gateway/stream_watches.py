"""What this gateway knows of the streams that are being read, until something changes them.

Readers at the end of a stream ask again and again, and many of them the same. So each run that is
read has a *watch*: it wakes those who wait, lets those who ask for the same page share one question
to the store, and remembers where streams end, so that who asks there can wait without a question.

All of that is forgotten whenever something may have changed: an append that this gateway took in,
a bell of the store. A page that was asked for before is never shared with, and its end never
remembered for, somebody who was woken after.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from fluvial_queue.stream_contract import StreamPage

MAX_IDLE: Final = 4096  # watches of runs that nobody reads just now; some hundred bytes each

_Key = tuple[str, int, int]
_Read = Callable[[], Awaitable[StreamPage | None]]


@dataclass(slots=True)
class _Known:
    """What is known since the last change."""

    reads: dict[_Key, asyncio.Future[StreamPage | None]] = field(
        default_factory=dict[_Key, "asyncio.Future[StreamPage | None]"]
    )
    ends: dict[str, StreamPage] = field(default_factory=dict[str, StreamPage])


class StreamWatch:
    """The watch over one run."""

    def __init__(self) -> None:
        self._known = _Known()
        self._waiting: set[asyncio.Event] = set()

    @property
    def waiting(self) -> int:
        """How many readers there are."""
        return len(self._waiting)

    def changed(self) -> None:
        """Forget what is known, and wake everybody."""
        self._known = _Known()
        for event in self._waiting:
            event.set()

    @contextmanager
    def waited(self) -> Generator[asyncio.Event]:
        """Have an event that is set by every change from now on."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    def end_of(self, name: str, position: int) -> StreamPage | None:
        """Return an empty page if the open stream is known to end at `position`."""
        page = self._known.ends.get(name)
        return page if page is not None and page.next == position else None

    async def read(self, key: _Key, read: _Read) -> StreamPage | None:
        """Return the page of (name, start, limit), by one question for all who ask meanwhile."""
        known = self._known
        shared = known.reads.get(key)
        if shared is None:
            shared = known.reads[key] = asyncio.ensure_future(read())
            shared.add_done_callback(lambda done: self._learn(known, key, done))
        # Shielded: whoever goes away must not take the others' answer along.
        return await asyncio.shield(shared)

    @staticmethod
    def _learn(known: _Known, key: _Key, done: asyncio.Future[StreamPage | None]) -> None:
        known.reads.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        page = done.result()
        if page is not None and page.next == page.length and not page.closed:
            name = key[0]
            known.ends[name] = StreamPage(
                app=page.app, entries=(), next=page.next, length=page.length, closed=False
            )


class StreamWatches:
    """The watches of all runs that are being read, or were a moment ago."""

    def __init__(self) -> None:
        self._watches: dict[str, StreamWatch] = {}
        self._idle: OrderedDict[str, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many readers there are."""
        return sum(watch.waiting for watch in self._watches.values())

    def changed(self, run_id: str) -> None:
        """Something was added to a stream of the run, or it has ended."""
        watch = self._watches.get(run_id)
        if watch is not None:
            watch.changed()

    def all_changed(self) -> None:
        """Something may have happened to any run."""
        for watch in self._watches.values():
            watch.changed()

    @contextmanager
    def of(self, run_id: str) -> Generator[StreamWatch]:
        """Have the watch over a run."""
        watch = self._watches.get(run_id)
        if watch is None:
            watch = self._watches[run_id] = StreamWatch()
        self._idle.pop(run_id, None)
        try:
            yield watch
        finally:
            if not watch.waiting:
                self._retire(run_id)

    def _retire(self, run_id: str) -> None:
        self._idle[run_id] = None
        self._idle.move_to_end(run_id)
        while len(self._idle) > MAX_IDLE:
            oldest, _ = self._idle.popitem(last=False)
            del self._watches[oldest]
