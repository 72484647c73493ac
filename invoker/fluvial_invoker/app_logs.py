"""App logs as the invoker writes them: one app's segments, appended to by all its instances.

What the files look like, and that time never goes back in them, says `fluvial.log_files`: the time
that a record claims is moved into what lies between the record before it and now. A segment is
followed by another one when it is large or old; whoever begins one also deletes what is too old or
too much, so that a flood of output is bounded while it comes in (the gateway sweeps by the clock).

A disk that is full costs records, never an instance: they are counted, and told once there is room.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

from fluvial.log_files import (
    SEGMENT_BYTES,
    SEGMENT_SECONDS,
    LogLimits,
    segment_path,
    segments,
    sweep,
)
from fluvial.unguarded import time_ns
from fluvial_invoker.log_records import LogRecord, encode_record

_SEGMENT_MS: Final = round(SEGMENT_SECONDS * 1000)

_log = logging.getLogger(__name__)


def wall_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time_ns() // 1_000_000


class AppLog:
    """One app's log; shared by its instances."""

    def __init__(
        self,
        folder: Path,
        *,
        app: str,
        on_written: Callable[[str], None],
        on_begun: Callable[[], None],
        segment_bytes: int = SEGMENT_BYTES,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._folder = folder
        self._app = app
        self._on_written = on_written
        self._on_begun = on_begun  # a segment was begun
        self._segment_bytes = segment_bytes
        self._now_ms = now_ms
        self._file: BinaryIO | None = None
        self._began_ms = 0
        self._size = 0
        self._last_ms = 0
        self._lost = 0  # records that the disk did not take

    def write(self, records: list[LogRecord]) -> None:
        """Append records in this order."""
        try:
            self._append(self._ready(), records)
        except OSError as error:
            if not self._lost:
                extra = {"app": self._app, "reason": str(error)}
                _log.warning("an app's log cannot be written", extra=extra)
            self._lost += len(records)
        else:
            self._on_written(self._app)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _ready(self) -> BinaryIO:
        """Return the segment that takes the next records."""
        now_ms = self._now_ms()
        is_over = self._size >= self._segment_bytes or now_ms - self._began_ms >= _SEGMENT_MS
        if self._file is not None and is_over:
            self.close()
            return self._begin(now_ms)
        return self._file or self._open(now_ms)

    def _append(self, file: BinaryIO, records: list[LogRecord]) -> None:
        if self._lost:
            text = f"{self._lost} records were lost: the disk took no more"
            notice = LogRecord(level="warning", message=text, fields={"lost_records": self._lost})
            records = [notice, *records]
        now_ms = max(self._now_ms(), self._last_ms)
        lines: list[bytes] = []
        for record in records:
            claimed_ms = now_ms if record.at_ms is None else record.at_ms
            self._last_ms = min(max(claimed_ms, self._last_ms), now_ms)
            lines.append(encode_record(record, self._app, self._last_ms))
        data = b"".join(lines)
        written = file.write(data)
        if written < len(data):
            os.ftruncate(file.fileno(), self._size)  # no half record
            raise OSError(f"{written} of {len(data)} bytes were written")
        self._size += written
        self._lost = 0

    def _open(self, now_ms: int) -> BinaryIO:
        """Go on where an earlier writer ended, unless that is long ago."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        newest = segments(self._folder)[-1:]
        for segment in newest:
            status = segment.path.stat()
            self._last_ms = max(self._last_ms, status.st_mtime_ns // 1_000_000, segment.start_ms)
            is_young = now_ms - segment.start_ms < _SEGMENT_MS
            if is_young and status.st_size < self._segment_bytes:
                return self._open_file(segment.path, segment.start_ms)
        return self._begin(now_ms)

    def _begin(self, now_ms: int) -> BinaryIO:
        start_ms = max(now_ms, self._last_ms, self._began_ms + 1)
        self._last_ms = start_ms  # nothing in a segment is older than its name
        path = segment_path(self._folder, start_ms)
        if not self._folder.is_dir():  # swept away meanwhile
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._open_file(path, start_ms)
        self._on_begun()
        return file

    def _open_file(self, path: Path, start_ms: int) -> BinaryIO:
        # Unbuffered: what was said is in the file when its instance has died.
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        file: BinaryIO = os.fdopen(descriptor, "r+b", buffering=0)
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # a writer was killed in the middle of a line
                size += file.write(b"\n")
        self._file, self._size, self._began_ms = file, size, start_ms
        return file


class AppLogs:
    """The logs of all apps: the open ones, and how much of all is kept."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: LogLimits | None = None,
        on_written: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._limits = limits or LogLimits()
        self._on_written = on_written or _nobody
        self._open: dict[str, tuple[AppLog, int]] = {}

    def take(self, app: str) -> AppLog:
        """Return the app's log; give it back with `release`."""
        log, users = self._open.get(app) or (self._new(app), 0)
        self._open[app] = (log, users + 1)
        return log

    def release(self, app: str) -> None:
        """One instance less writes to it; the last one closes the file."""
        log, users = self._open[app]
        if users > 1:
            self._open[app] = (log, users - 1)
        else:
            del self._open[app]
            log.close()

    def _new(self, app: str) -> AppLog:
        return AppLog(
            self._folder / app, app=app, on_written=self._on_written, on_begun=self._sweep
        )

    def _sweep(self) -> None:
        try:
            sweep(self._folder, self._limits, wall_ms())
        except OSError as error:
            _log.warning("old logs were not deleted", extra={"reason": str(error)})


def _nobody(app: str) -> None:
    """Nobody waits for what is written."""
