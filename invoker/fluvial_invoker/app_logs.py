"""App logs: what instances write, sanitised and bounded, in <home>/logs/apps/<app>.log.

One JSON object per line: ts (RFC 3339, UTC), level, app, deployment, instance, invocation, run,
text. A line that an instance structured itself begins with a record separator (see
`instance/output.py`); any other is a raw write and has level "raw". Bounded: the line, the rate of
an instance (what is above is dropped and counted), the file (one rotation), and what is kept in
memory as the reason if the instance dies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

MAX_LINE_BYTES: Final = 64 * 1024
MAX_FILE_BYTES: Final = 16 * 1024 * 1024  # twice that with the rotated one
TAIL_BYTES: Final = 4096
RATE_BYTES_PER_SECOND: Final = 1024 * 1024
BURST_BYTES: Final = 4 * 1024 * 1024
RESUME_BYTES: Final = RATE_BYTES_PER_SECOND // 2
_RECORD_SEPARATOR: Final = 0x1E
_FIELDS: Final = 5
_MAX_NAME_CHARACTERS: Final = 64
# C0 without tab and newline, DEL, C1: what makes a terminal do things.
_CONTROL: Final = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])


class AppLog:
    """One app's log file; shared by its instances."""

    def __init__(self, path: Path, *, max_file_bytes: int = MAX_FILE_BYTES) -> None:
        self._path = path
        self._max_file_bytes = max_file_bytes
        self._file: BinaryIO | None = None
        self._size = 0

    def write(self, lines: list[bytes]) -> None:
        """Append whole lines."""
        data = b"".join(lines)
        if self._file is None:
            self._open()
        if self._size and self._size + len(data) > self._max_file_bytes:
            self._rotate()
        assert self._file is not None
        self._file.write(data)
        self._size += len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._file.tell()

    def _rotate(self) -> None:
        self.close()
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        self._open()


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose lines they are."""

    app: str
    deployment: str
    instance: str


class LogPipe:
    """Turns the bytes that one instance writes into lines of its app's log."""

    def __init__(self, origin: Origin, log: AppLog, *, monotonic: Callable[[], float]) -> None:
        self._origin = origin
        self._log = log
        self._monotonic = monotonic
        self._partial = b""
        self._tail = ""
        self._allowance = float(BURST_BYTES)
        self._refilled_at = monotonic()
        self._dropped_bytes = 0

    @property
    def tail(self) -> str:
        """The last 4 KiB of text."""
        return self._tail

    def feed(self, data: bytes) -> None:
        """Take what was read from the pipe."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        if len(self._partial) > MAX_LINE_BYTES:
            lines.append(self._partial)
            self._partial = b""
        self._take(lines)

    def end(self, last_words: str | None = None) -> None:
        """The pipe is closed: take the unfinished line, and add what there is to say of the end."""
        lines, self._partial = [self._partial], b""
        self._take(lines)
        out = [self._note_dropped()] if self._dropped_bytes else []
        if last_words is not None:
            out.append(self._format(None, "error", None, None, last_words))
        if out:
            self._log.write(out)

    def _take(self, lines: list[bytes]) -> None:
        self._refill()
        out: list[bytes] = []
        for line in lines:
            if not line:
                continue
            # Once something is dropped, drop until there is room for more than a line again.
            needed = max(len(line), RESUME_BYTES) if self._dropped_bytes else len(line)
            if needed > self._allowance:
                self._dropped_bytes += len(line)
                continue
            self._allowance -= len(line)
            if self._dropped_bytes:
                out.append(self._note_dropped())
            out.append(self._entry(line[:MAX_LINE_BYTES]))
        if out:
            self._log.write(out)

    def _refill(self) -> None:
        now = self._monotonic()
        gained = (now - self._refilled_at) * RATE_BYTES_PER_SECOND
        self._allowance = min(float(BURST_BYTES), self._allowance + gained)
        self._refilled_at = now

    def _note_dropped(self) -> bytes:
        text = f"{self._dropped_bytes} bytes dropped: more than {RATE_BYTES_PER_SECOND} a second"
        self._dropped_bytes = 0
        return self._format(None, "warning", None, None, text)

    def _entry(self, line: bytes) -> bytes:
        if line[0] == _RECORD_SEPARATOR:
            structured = _parse(line[1:])
            if structured is not None:
                return self._format(*structured)
        return self._format(None, "raw", None, None, line.decode("utf-8", "replace"))

    def _format(
        self, at_ms: int | None, level: str, invocation: str | None, run: str | None, text: str
    ) -> bytes:
        text = text.translate(_CONTROL)
        self._tail = f"{self._tail}\n{text}"[-TAIL_BYTES:]
        at = datetime.now(UTC) if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
        entry = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": level,
            "app": self._origin.app,
            "deployment": self._origin.deployment,
            "instance": self._origin.instance,
            "invocation": invocation,
            "run": run,
            "text": text,
        }
        return json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _parse(data: bytes) -> tuple[int, str, str | None, str | None, str] | None:
    """Return the fields of a structured line; None when it is not one after all."""
    try:
        fields: Any = json.loads(data)
    except ValueError:
        return None
    if not isinstance(fields, list) or len(cast("list[Any]", fields)) != _FIELDS:
        return None
    at_ms, level, invocation, run, text = cast("list[Any]", fields)
    if not isinstance(at_ms, int) or not isinstance(text, str):
        return None
    if not 0 <= at_ms < 253402300799000:  # the last moment that datetime can name
        return None
    return at_ms, _name(level) or "info", _name(invocation), _name(run), text


def _name(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return value[:_MAX_NAME_CHARACTERS].translate(_CONTROL).replace("\n", " ")


class AppLogs:
    """The open log files, by app."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[AppLog, int]] = {}

    def take(self, app: str) -> AppLog:
        """Return the app's log; give it back with `release`."""
        log, users = self._open.get(app) or (AppLog(self._folder / f"{app}.log"), 0)
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


def read_available(fd: int, take: Callable[[bytes], None], *, at_most: int) -> bool:
    """Read what a non-blocking pipe holds, up to a limit; false at its end."""
    left = at_most
    while left > 0:
        try:
            data = os.read(fd, MAX_LINE_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        take(data)
        left -= len(data)
    return True
