"""The log pipe of one instance: bytes in, records of its app's log out.

A line that the instance structured itself begins with a record separator (see
`instance/output.py`); any other was written past Python (a C extension, a child process, a crashing
interpreter) and is a record of the stream "raw". Bounded: the line, the rate of an instance (what
is above is dropped, counted and told), and what is kept in memory as the reason if it dies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from fluvial_invoker.app_logs import AppLog
from fluvial_invoker.log_records import (
    INSTANCE_KIND,
    LogRecord,
    clean,
    clean_fields,
    parse_structured,
)

MAX_LINE_BYTES: Final = 64 * 1024
TAIL_BYTES: Final = 4096
RATE_BYTES_PER_SECOND: Final = 1024 * 1024
BURST_BYTES: Final = 4 * 1024 * 1024
RESUME_BYTES: Final = RATE_BYTES_PER_SECOND // 2
_RECORD_SEPARATOR: Final = 0x1E
_RAW: Final = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose lines they are."""

    deployment: str
    instance: str


class LogPipe:
    """Turns the bytes that one instance writes into records of its app's log."""

    def __init__(self, origin: Origin, log: AppLog, *, monotonic: Callable[[], float]) -> None:
        self._origin = origin
        self._log = log
        self._monotonic = monotonic
        self._partial = b""
        self._tail = ""
        self._allowance = float(BURST_BYTES)
        self._refilled_at = monotonic()
        self._dropped_bytes = 0
        self._dropped_lines = 0

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

    def end(self) -> None:
        """The pipe is closed: take the unfinished line, and tell what was dropped last."""
        lines, self._partial = [self._partial], b""
        self._take(lines)
        if self._dropped_lines:
            self._log.write([self._dropped()])

    def tell(self, level: str, message: str, fields: dict[str, Any]) -> None:
        """Write a record of the invoker about the instance itself."""
        checked = clean_fields(fields)  # some of them an instance has said
        record = self._own(level, clean(message), kind=INSTANCE_KIND, fields=checked)
        self._log.write([record])

    def _take(self, lines: list[bytes]) -> None:
        self._refill()
        records: list[LogRecord] = []
        for line in lines:
            if not line:
                continue
            # Once something is dropped, drop until there is room for more than a line again.
            needed = max(len(line), RESUME_BYTES) if self._dropped_lines else len(line)
            if needed > self._allowance:
                self._dropped_bytes += len(line)
                self._dropped_lines += 1
                continue
            self._allowance -= len(line)
            if self._dropped_lines:
                records.append(self._dropped())
            record = self._record(line[:MAX_LINE_BYTES])
            self._tail = f"{self._tail}\n{record.message}"[-TAIL_BYTES:]
            records.append(record)
        if records:
            self._log.write(records)

    def _refill(self) -> None:
        now = self._monotonic()
        gained = (now - self._refilled_at) * RATE_BYTES_PER_SECOND
        self._allowance = min(float(BURST_BYTES), self._allowance + gained)
        self._refilled_at = now

    def _dropped(self) -> LogRecord:
        fields = {"dropped_lines": self._dropped_lines, "dropped_bytes": self._dropped_bytes}
        message = (
            f"{self._dropped_lines} lines with {self._dropped_bytes} bytes dropped: an instance may"
            f" write {RATE_BYTES_PER_SECOND} bytes a second"
        )
        self._dropped_bytes = self._dropped_lines = 0
        return self._own("warning", message, fields=fields)

    def _record(self, line: bytes) -> LogRecord:
        if line[0] == _RECORD_SEPARATOR:
            found = parse_structured(
                line[1:], deployment=self._origin.deployment, instance=self._origin.instance
            )
            if found is not None:
                return found
        return self._own("info", clean(line.decode("utf-8", "replace")), stream=_RAW)

    def _own(self, level: str, message: str, **members: Any) -> LogRecord:
        return LogRecord(
            level=level,
            message=message,
            deployment=self._origin.deployment,
            instance=self._origin.instance,
            **members,
        )


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
