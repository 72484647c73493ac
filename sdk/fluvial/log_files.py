"""App logs on disk: how the invoker names and writes them, and the gateway finds them.

    <home>/logs/apps/<app>/<start>.jsonl

A segment holds one record a line, as JSON, in UTF-8. `<start>` is the Unix time in milliseconds, 13
digits, at which the segment was begun. Within an app time never goes back, neither in a segment
nor from one to the next, and every line begins with it in one form (`TIME_PREFIX`, then
`TIME_CHARACTERS` characters), so the names are an index of the segments and the lines of each can
be searched by halving: reading costs what is read, not what is kept.

Nothing is ever changed in a segment but its end. A program that was killed may have left an
unfinished line there; readers pass over what is no record.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fluvial.errors import InvalidRequestError

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
TIME_PREFIX: Final = b'{"time":"'
TIME_CHARACTERS: Final = len("2026-01-31T12:00:00.000Z")
SEGMENT_BYTES: Final = 16 * 1024 * 1024
SEGMENT_SECONDS: Final = 3600.0
DEFAULT_RETENTION_SECONDS: Final = 7 * 86_400.0
DEFAULT_APP_BYTES: Final = 256 * 1024 * 1024
DEFAULT_TOTAL_BYTES: Final = 2 * 1024 * 1024 * 1024
LAST_MS: Final = 253_402_300_799_999  # the end of the year 9999: what a datetime can name
_NAME: Final = re.compile(r"([0-9]{13})\.jsonl")
_POSITION: Final = re.compile(r"([0-9]{1,13})\.([0-9]{1,12})")


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A place in an app's log: the start of a segment and an offset in it."""

    start_ms: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> LogPosition:
        """Return the position that `str` made `text` from.

        Raises:
            InvalidRequestError: it is none.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            raise InvalidRequestError(f"{text!r} is not a position in a log: <number>.<number>")
        return cls(int(match.group(1)), int(match.group(2)))

    def __str__(self) -> str:
        return f"{self.start_ms}.{self.offset}"


@dataclass(frozen=True, slots=True, order=True)
class LogSegment:
    """One file of an app's log."""

    start_ms: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How long and how much is kept."""

    retention_seconds: float = DEFAULT_RETENTION_SECONDS
    app_bytes: int = DEFAULT_APP_BYTES  # of one app
    total_bytes: int = DEFAULT_TOTAL_BYTES  # of all apps together


def apps_folder(home: Path) -> Path:
    """Return the folder that holds the logs of all apps."""
    return home / "logs" / "apps"


def segment_path(folder: Path, start_ms: int) -> Path:
    """Return where the segment of an app's folder lies that begins then."""
    return folder / f"{start_ms:013d}.jsonl"


def segments(folder: Path) -> list[LogSegment]:
    """Return the segments of one app, oldest first; none when it has no folder."""
    try:
        found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(LogSegment(int(match.group(1)), path) for match, path in found if match)


def time_text(milliseconds: int) -> str:
    """Return a Unix time as records have it; such texts compare as their times do."""
    at = datetime.fromtimestamp(min(max(milliseconds, 0), LAST_MS) / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sweep(folder: Path, limits: LogLimits, now_ms: int) -> int:
    """Delete what is older than the retention, then the oldest of what is too much; return how many
    segments were deleted.

    The newest segment of an app may be open: it goes only when nothing was written to it for the
    whole retention, and whoever has it open then begins another one.

    Raises:
        OSError: a folder cannot be read, or a file not be deleted.
    """
    oldest_ms = now_ms - round(limits.retention_seconds * 1000)
    kept: list[tuple[LogSegment, int]] = []
    deleted = newest_bytes = 0
    for app in _folders(folder):
        found = segments(app)
        sizes: list[tuple[LogSegment, int]] = []
        for segment in found:
            status = _status(segment.path)
            if status is None:
                continue
            size, written_ms = status
            if written_ms < oldest_ms:
                deleted += _delete(segment)
            else:
                sizes.append((segment, size))
        surplus = _surplus(sizes[:-1], limits.app_bytes - sum(size for _, size in sizes[-1:]))
        deleted += sum(_delete(segment) for segment, _ in surplus)
        kept += sizes[len(surplus) : -1]
        if found and not sizes:
            _remove_if_empty(app)
        newest_bytes += sizes[-1][1] if sizes else 0
    kept.sort(key=lambda pair: pair[0].start_ms)
    surplus = _surplus(kept, limits.total_bytes - newest_bytes)
    return deleted + sum(_delete(segment) for segment, _ in surplus)


def _folders(folder: Path) -> Iterable[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []


def _surplus(sizes: list[tuple[LogSegment, int]], limit: int) -> list[tuple[LogSegment, int]]:
    """Return the oldest of `sizes` that must go so that the rest is within the limit."""
    total = sum(size for _, size in sizes)
    count = 0
    while total > limit and count < len(sizes):
        total -= sizes[count][1]
        count += 1
    return sizes[:count]


def _status(path: Path) -> tuple[int, int] | None:
    """Return a file's size and when it was written last; None: another sweep was faster."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns // 1_000_000


def _delete(segment: LogSegment) -> bool:
    segment.path.unlink(missing_ok=True)
    return True


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # an instance of the app has just begun to write
