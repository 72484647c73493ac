"""What user code prints and logs, as lines on the log pipe that name their invocation.

Descriptors 1 and 2 are the log pipe itself, so what is written past Python (by C extensions, child
processes, a crashing interpreter) arrives as plain lines. What Python code writes to `sys.stdout`,
`sys.stderr`, `logging` or `warnings` becomes a structured line: the record separator, then a JSON
array

    [Unix milliseconds, level, stream, invocation id, kind, function, run id, step, attempt,
     logger, message, fields]

in which what does not apply is null. The invoker parses it, adds app, deployment and instance,
strips control characters, and limits lines and rate: what a line claims is never trusted beyond its
own text (`fluvial_invoker/log_records.py`).
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import traceback
from typing import Any, Final

from fluvial.context import is_replaying
from fluvial.unguarded import time_ns
from fluvial_invoker.instance.metering import Meter, current

WARM_UP: Final = "inv_warm-up"  # an invocation that nobody waits for: what fails there harms nobody
RECORD_SEPARATOR: Final = b"\x1e"
MAX_TEXT_CHARACTERS: Final = 16 * 1024  # as JSON in UTF-8 at most 64 KiB, the longest line
_OWN_FOLDER: Final = os.path.dirname(__file__)
_MAX_PARTIAL_LINES: Final = 1024  # of invocations that printed without a newline
_REPLAYED: Final = {"replayed": True}


def capture_streams(log_fd: int) -> Sink:
    """Replace the interpreter's streams; what is printed goes to `log_fd` from now on."""
    sink = Sink(log_fd)
    sys.stdout = LineStream(sink, "info", 1)
    sys.stderr = LineStream(sink, "error", 2)
    return sink


class Sink:
    """Writes structured lines to a descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()

    def emit(
        self,
        level: str,
        text: str,
        meter: Meter,
        *,
        stream: str,
        logger: str | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Write one record. `fields` must be what JSON can hold, and bounded."""
        if len(text) > MAX_TEXT_CHARACTERS:
            text = text[:MAX_TEXT_CHARACTERS] + "…"
        if is_replaying():
            fields = {**(fields or {}), **_REPLAYED}
        kind, function, step, attempt = meter.subject()
        members = (
            *(time_ns() // 1_000_000, level, stream, meter.id, kind, function, meter.run),
            *(step, attempt, logger, text, fields),
        )
        line = RECORD_SEPARATOR + json.dumps(members, ensure_ascii=False).encode("utf-8", "replace")
        with self._lock:
            _write_all(self._fd, line + b"\n")


class LineStream(io.TextIOBase):
    """A text stream that cuts what is written into lines, separately for each invocation (and
    thread): what two of them print at once is never mixed within a line."""

    def __init__(self, sink: Sink, level: str, fd: int) -> None:
        self.sink = sink
        self.name = "stdout" if fd == 1 else "stderr"
        self._level = level
        self._fd = fd
        self._partial: dict[tuple[Meter, int], str] = {}
        self.buffer = _AttributedBytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        return "replace"

    def reconfigure(self, **_: object) -> None:
        """Accepted, as of any text stream; it stays as it is."""

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fd

    def write(self, text: str, /) -> int:
        meter = current.get()
        key = (meter, threading.get_ident())
        pending = self._partial.pop(key, "") + text
        *lines, rest = pending.split("\n")
        for line in lines:
            self.sink.emit(self._level, line, meter, stream=self.name)
        if len(rest) > MAX_TEXT_CHARACTERS or len(self._partial) >= _MAX_PARTIAL_LINES:
            self.sink.emit(self._level, rest, meter, stream=self.name)
        elif rest:
            self._partial[key] = rest
        return len(text)

    def flush(self) -> None:
        """Complete lines are out already; a partial one waits for its end."""

    def end(self, meter: Meter) -> None:
        """Write the unfinished lines of an invocation that has ended."""
        for key in [key for key in self._partial if key[0] is meter]:
            rest = self._partial.pop(key, "")
            if rest:
                self.sink.emit(self._level, rest, meter, stream=self.name)


def end_output(meter: Meter) -> None:
    """Write what an invocation printed without a final newline."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, LineStream):
            stream.end(meter)


def report(
    text: str, meter: Meter, *, level: str = "error", fields: dict[str, Any] | None = None
) -> None:
    """Write a line of the platform itself into the app's log."""
    if meter.id == WARM_UP:
        return
    stream = sys.stderr
    if isinstance(stream, LineStream):
        stream.sink.emit(level, text, meter, stream="system", fields=fields)
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


class _AttributedBytes(io.BufferedIOBase):
    """`sys.stdout.buffer`: bytes are text in UTF-8, written at once, by whoever writes them."""

    def __init__(self, stream: LineStream) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        self._stream.write(content.decode("utf-8", "replace"))
        return len(content)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
