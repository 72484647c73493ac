"""What user code prints and logs, as lines on the log pipe that name their invocation.

Descriptors 1 and 2 are the log pipe itself, so raw writes (C extensions, child processes, a
crashing interpreter) arrive as plain lines. What Python code writes to `sys.stdout`, `sys.stderr`
or `logging` becomes a structured line: the record separator, then a JSON array

    [Unix milliseconds, level, invocation id | null, run id | null, text]

The invoker parses it, adds app, deployment and instance, strips control characters, and limits
lines and rate: what a line claims is never trusted beyond its own text.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import traceback
from typing import Final

from fluvial.unguarded import time_ns
from fluvial_invoker.instance.metering import Meter, current

RECORD_SEPARATOR: Final = b"\x1e"
MAX_TEXT_CHARACTERS: Final = 16 * 1024  # as JSON in UTF-8 at most 64 KiB, the longest line
_OWN_FOLDER: Final = os.path.dirname(__file__)
_MAX_PARTIAL_LINES: Final = 1024  # of invocations that printed without a newline


def capture_output(log_fd: int) -> None:
    """Replace the interpreter's streams; text goes to `log_fd` from now on."""
    sink = Sink(log_fd)
    sys.stdout = LineStream(sink, "info", 1)
    sys.stderr = LineStream(sink, "error", 2)
    # Not a handler of the root logger: that would turn the user's `basicConfig` into a no-op.
    logging.lastResort = _LastResort(sink)


class Sink:
    """Writes structured lines to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def emit(self, level: str, text: str, meter: Meter) -> None:
        if len(text) > MAX_TEXT_CHARACTERS:
            text = text[:MAX_TEXT_CHARACTERS] + "…"
        fields = (time_ns() // 1_000_000, level, meter.id, meter.run, text)
        line = RECORD_SEPARATOR + json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace")
        with self._lock:
            _write_all(self._fd, line + b"\n")


class LineStream(io.TextIOBase):
    """A text stream that cuts what is written into lines, separately for each invocation."""

    def __init__(self, sink: Sink, level: str, fd: int) -> None:
        self.sink = sink
        self._level = level
        self._fd = fd
        self._partial: dict[Meter, str] = {}
        self.buffer = io.BufferedWriter(_RawDescriptor(fd))

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        return "replace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str, /) -> int:
        meter = current.get()
        pending = self._partial.pop(meter, "") + text
        *lines, rest = pending.split("\n")
        for line in lines:
            self.sink.emit(self._level, line, meter)
        if len(rest) > MAX_TEXT_CHARACTERS or len(self._partial) >= _MAX_PARTIAL_LINES:
            self.sink.emit(self._level, rest, meter)
        elif rest:
            self._partial[meter] = rest
        return len(text)

    def flush(self) -> None:
        """Complete lines are out already; a partial one waits for its end."""

    def end(self, meter: Meter) -> None:
        """Write the unfinished line of an invocation that has ended."""
        rest = self._partial.pop(meter, None)
        if rest:
            self.sink.emit(self._level, rest, meter)


def end_output(meter: Meter) -> None:
    """Write what an invocation printed without a final newline."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, LineStream):
            stream.end(meter)


def report(text: str, meter: Meter, *, level: str = "error") -> None:
    """Write a line of the platform itself into the app's log."""
    stream = sys.stderr
    if isinstance(stream, LineStream):
        stream.sink.emit(level, text, meter)
    else:
        os.write(2, text.encode("utf-8", "replace") + b"\n")


def report_exception(error: BaseException, meter: Meter, title: str) -> None:
    """Write a traceback, attributed to an invocation."""
    report(f"{title}\n{format_user_error(error)}", meter)


def format_user_error(error: BaseException) -> str:
    """Return a traceback that begins with the user's own code, where that is in it."""
    trace = error.__traceback__
    while trace is not None and _is_own(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    shown = trace or error.__traceback__
    return "".join(traceback.format_exception(type(error), error, shown)).rstrip()


def _is_own(filename: str) -> bool:
    return filename.startswith((_OWN_FOLDER, "<frozen importlib"))


class _RawDescriptor(io.RawIOBase):
    """`sys.stdout.buffer`: bytes go to the descriptor as they are."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object, /) -> int:
        return os.write(self._fd, memoryview(data))  # type: ignore[arg-type]  # bytes-like


class _LastResort(logging.Handler):
    """What `logging` uses when the user has configured no handler."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(logging.WARNING)
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.emit(record.levelname.lower(), self.format(record), current.get())


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
