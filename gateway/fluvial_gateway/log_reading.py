"""Reading app logs: pages from a position or a time on, narrowed by filters.

The gateway reads the segments that the invoker of its machine writes, in threads. A page looks at
a bounded part of a log and says where the next one begins, so that no filter, however little it
finds, keeps a thread for long. Lines are parsed only when the texts that a filter asks for stand in
them somewhere: most of a log is passed over at the speed of a search for bytes.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from fluvial.log_files import (
    LEVELS,
    TIME_CHARACTERS,
    TIME_PREFIX,
    LogPosition,
    LogSegment,
    segments,
    time_text,
)

MAX_PAGE_BYTES: Final = 1024 * 1024  # of the lines that a page holds
_SCAN_BYTES: Final = 16 * 1024 * 1024  # that a page looks at
_TAIL_SCAN_BYTES: Final = 64 * 1024 * 1024  # that the search for the last records looks at
_BLOCK_BYTES: Final = 256 * 1024
_CONCURRENT: Final = 2  # readers in threads; the loop shares the interpreter with them
_HEAD_BYTES: Final = len(TIME_PREFIX) + TIME_CHARACTERS
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which records are wanted: those that have all that is given."""

    deployment: str | None = None
    instance: str | None = None
    invocation: str | None = None
    kind: str | None = None
    function: str | None = None
    run: str | None = None
    level: str | None = None  # at least
    text: str | None = None  # somewhere in the message
    since_ms: int | None = None  # at or after
    until_ms: int | None = None  # before


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some records, oldest first, each with the position behind it."""

    records: tuple[tuple[LogPosition, dict[str, Any]], ...]
    next: LogPosition
    done: bool  # the log's end, or the end of the time that was asked for
    missed: bool  # what stood at the position has been deleted meanwhile


class LogReading:
    """Reads the logs of this machine's apps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turns = asyncio.Semaphore(_CONCURRENT)

    def has(self, app: str) -> bool:
        """Whether anything of an app is kept; also of one that is not deployed any more."""
        return (self._folder / app).is_dir()

    async def page(
        self, app: str, wanted: LogFilter, start: LogPosition | None, *, limit: int
    ) -> LogPage:
        """Return up to `limit` records from `start` on; None: from the filter's time on."""
        folder = self._folder / app
        return await self._in_thread(lambda: read_page(folder, wanted, start, limit=limit))

    async def last(self, app: str, wanted: LogFilter, count: int) -> LogPosition:
        """Return where the last `count` records begin, or the log's end when there is none."""
        folder = self._folder / app
        return await self._in_thread(lambda: position_of_last(folder, wanted, count))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        async with self._turns:
            return await asyncio.to_thread(work)


def read_page(folder: Path, wanted: LogFilter, start: LogPosition | None, *, limit: int) -> LogPage:
    """Return a page of one app's log."""
    found = segments(folder)
    # A position of no segment is that of a log in which nothing had been written yet.
    missed = start is not None and bool(found) and 0 < start.start_ms < found[0].start_ms
    if start is None:
        start = _position_of_time(found, wanted.since_ms)
    page = _Page(_Matcher(wanted), start, limit)
    # Listed before any is read: a segment that another one follows gets no further line.
    for segment in found:
        if segment.start_ms < start.start_ms:
            continue
        offset = start.offset if segment.start_ms == start.start_ms else 0
        if not page.read(segment, offset):
            break
    return LogPage(
        records=tuple(page.records), next=page.position, done=not page.is_cut, missed=missed
    )


def position_of_last(folder: Path, wanted: LogFilter, count: int) -> LogPosition:
    """Return where the last `count` records of one app's log begin."""
    found = segments(folder)
    if wanted.until_ms is not None:
        found = [segment for segment in found if segment.start_ms < wanted.until_ms]
    matcher = _Matcher(wanted)
    position, left, budget = _end(found), count, _TAIL_SCAN_BYTES
    if count == 0:
        return position
    for segment in reversed(found):
        with _opened(segment) as file:
            for begin, lines in _backwards(file) if file else ():
                budget -= len(lines)
                for offset, line in _reversed_lines(lines, begin, matcher):
                    if matcher.is_before(line):
                        return position
                    if matcher.match(line) is not None:
                        position, left = LogPosition(segment.start_ms, offset), left - 1
                        if left == 0:
                            return position
                if budget < 0:
                    return position
    return position


@dataclass(slots=True)
class _Page:
    """A page while it is filled."""

    matcher: _Matcher
    position: LogPosition
    limit: int
    records: list[tuple[LogPosition, dict[str, Any]]] = field(
        default_factory=list[tuple[LogPosition, dict[str, Any]]]
    )
    is_cut: bool = False  # there may be more behind it
    _scanned: int = 0
    _held: int = 0

    def read(self, segment: LogSegment, offset: int) -> bool:
        """Take what is wanted of a segment; false: the page is complete."""
        self.position = LogPosition(segment.start_ms, offset)
        with _opened(segment) as file:
            if file is None:
                return True
            file.seek(offset)
            pending = b""
            while block := file.read(_BLOCK_BYTES):
                self._scanned += len(block)
                whole, newline, rest = (pending + block).rpartition(b"\n")
                pending = rest
                if newline and not self._take(segment, whole):
                    return False
                if self._scanned >= _SCAN_BYTES:
                    self.is_cut = True
                    return False
        return True

    def _take(self, segment: LogSegment, whole: bytes) -> bool:
        offset = self.position.offset
        if not self.matcher.may_match(whole):
            self.position = LogPosition(segment.start_ms, offset + len(whole) + 1)
            return True
        for line in whole.split(b"\n"):
            if self.matcher.is_behind(line):
                return False
            if self._held >= MAX_PAGE_BYTES or len(self.records) >= self.limit:
                self.is_cut = True
                return False
            offset += len(line) + 1
            self.position = LogPosition(segment.start_ms, offset)
            record = self.matcher.match(line)
            if record is not None:
                self.records.append((self.position, record))
                self._held += len(line)
        return True


class _Matcher:
    """Says of a line whether it holds a record that is wanted."""

    def __init__(self, wanted: LogFilter) -> None:
        self._members = {
            name: value
            for name, value in (
                ("deployment", wanted.deployment),
                ("instance", wanted.instance),
                ("invocation", wanted.invocation),
                ("kind", wanted.kind),
                ("function", wanted.function),
                ("run", wanted.run),
            )
            if value is not None
        }
        self._text = wanted.text
        self._levels = LEVELS[LEVELS.index(wanted.level) :] if wanted.level else LEVELS
        self._level = _pattern(self._levels)
        self._since = _time_bytes(wanted.since_ms)
        self._until = _time_bytes(wanted.until_ms)
        self._needles = [
            f'"{name}":{_json(value)}'.encode() for name, value in self._members.items()
        ]
        if self._text is not None:
            self._needles.append(_json(self._text)[1:-1].encode("utf-8", "replace"))

    def may_match(self, lines: bytes) -> bool:
        """Whether one of several lines may be wanted; cheap, and never wrong about a no."""
        if self._level is not None and self._level.search(lines) is None:
            return False
        return all(needle in lines for needle in self._needles)

    def is_before(self, line: bytes) -> bool:
        """Whether a line is older than what is wanted."""
        time = _time_of(line)
        return self._since is not None and time is not None and time < self._since

    def is_behind(self, line: bytes) -> bool:
        """Whether a line is younger than what is wanted."""
        time = _time_of(line)
        return self._until is not None and time is not None and time >= self._until

    def match(self, line: bytes) -> dict[str, Any] | None:
        """Return the record that a line holds, if it is wanted."""
        if not self.may_match(line) or self.is_before(line) or self.is_behind(line):
            return None
        try:
            found: Any = json.loads(line)
        except ValueError:  # a writer was killed in the middle of it
            return None
        if not isinstance(found, dict):
            return None
        record = cast("dict[str, Any]", found)
        if record.get("level") not in self._levels:
            return None
        if any(record.get(name) != value for name, value in self._members.items()):
            return None
        if self._text is not None and self._text not in str(record.get("message", "")):
            return None
        return record


@contextmanager
def _opened(segment: LogSegment) -> Generator[BinaryIO | None, None, None]:
    """Open a segment's file; None: it was deleted since it was listed."""
    try:
        file = segment.path.open("rb", buffering=0)
    except FileNotFoundError:
        yield None
        return
    with file:
        yield file


def _end(found: list[LogSegment]) -> LogPosition:
    """Return the position behind the last whole line."""
    if not found:
        return LogPosition(0, 0)
    newest = found[-1]
    with _opened(newest) as file:
        offset = next((at + len(lines) + 1 for at, lines in _backwards(file)), 0) if file else 0
    return LogPosition(newest.start_ms, offset)


def _position_of_time(found: list[LogSegment], since_ms: int | None) -> LogPosition:
    if not found:
        return LogPosition(0, 0)
    if since_ms is None:
        return LogPosition(found[0].start_ms, 0)
    # Strictly: the end of the segment before may have the same time.
    earlier = [segment for segment in found if segment.start_ms < since_ms]
    segment = earlier[-1] if earlier else found[0]
    with _opened(segment) as file:
        offset = _offset_of_time(file, _time_bytes(since_ms) or b"") if file else 0
    return LogPosition(segment.start_ms, offset)


def _offset_of_time(file: BinaryIO, time: bytes) -> int:
    """Return where the first line begins that is not older than `time`, by halving.

    All lines that begin before `low` are older; the line that begins next at or behind `high` is
    not, or is none."""
    low, high = 0, file.seek(0, 2)
    while low < high:
        middle = (low + high) // 2
        begin = _line_after(file, middle)
        file.seek(begin)
        found = _time_of(file.read(_HEAD_BYTES)) if begin < high else None
        if found is not None and found < time:
            low = begin + 1
        else:
            high = middle
    return _line_after(file, low)


def _line_after(file: BinaryIO, offset: int) -> int:
    """Return where the first line begins that begins at or behind `offset`."""
    if offset == 0:
        return 0
    file.seek(offset - 1)
    position = offset - 1
    while block := file.read(_BLOCK_BYTES):
        newline = block.find(b"\n")
        if newline >= 0:
            return position + newline + 1
        position += len(block)
    return position


def _backwards(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the whole lines of a file by the block, the last one first, with where each begins.

    What stands behind the last newline is being written, or was never finished."""
    end = file.seek(0, 2)
    behind = b""  # the rest, with its newline, of a line that begins in front of `end`
    while end > 0:
        begin = max(0, end - _BLOCK_BYTES)
        file.seek(begin)
        data, offset = file.read(end - begin) + behind, begin
        if begin > 0:
            first, newline, data = data.partition(b"\n")
            behind = first + newline
            offset += len(behind)
        lines, newline, _ = data.rpartition(b"\n")
        if newline:
            yield offset, lines
        end = begin


def _reversed_lines(data: bytes, offset: int, matcher: _Matcher) -> Iterator[tuple[int, bytes]]:
    """Yield lines, the last one first, with where they begin; of a block in which none can be
    wanted only the first line, whose time says whether to go on."""
    if not matcher.may_match(data):
        yield offset, data.partition(b"\n")[0]
        return
    end = len(data)
    while True:
        newline = data.rfind(b"\n", 0, end)
        yield offset + newline + 1, data[newline + 1 : end]
        if newline < 0:
            return
        end = newline


def _pattern(levels: tuple[str, ...]) -> re.Pattern[bytes] | None:
    """Return what stands in each line of one of these levels; None: they are all."""
    if levels == LEVELS:
        return None
    return re.compile(rb'"level":"(?:%s)"' % "|".join(levels).encode())


def _time_of(line: bytes) -> bytes | None:
    if not line.startswith(TIME_PREFIX) or len(line) < _HEAD_BYTES:
        return None
    return line[len(TIME_PREFIX) : _HEAD_BYTES]


def _time_bytes(milliseconds: int | None) -> bytes | None:
    return None if milliseconds is None else time_text(milliseconds).encode()


def _json(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
