"""What goes through `logging` and `warnings`, as records with level, logger and fields.

Users configure logging as everywhere: loggers, levels, filters and handlers do what they do. Only a
`StreamHandler` that would write to the captured `sys.stdout` or `sys.stderr` hands over the record
instead of its text, so `basicConfig()` gives one structured record per call and no second line.
A formatter of a class of its own is respected: its text is the message then, and the fields are
left out, since it may be there to hide some. Where nothing is configured, what passes the loggers'
levels is captured all the same (Python's own last resort would print warnings and above).
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, Final, TextIO, cast

from fluvial_invoker.instance.metering import current
from fluvial_invoker.instance.output import LineStream, Sink, capture_streams

MAX_FIELDS: Final = 32
MAX_VALUE_CHARACTERS: Final = 1024
MAX_FIELDS_CHARACTERS: Final = 8 * 1024
_WARNINGS: Final = "py.warnings"  # the name that `logging.captureWarnings` uses too
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LEVELS: Final = (
    (logging.CRITICAL, "critical"),
    (logging.ERROR, "error"),
    (logging.WARNING, "warning"),
    (logging.INFO, "info"),
)
_plain_formatter: Final = logging.Formatter()
_Emit = Callable[["logging.StreamHandler[Any]", logging.LogRecord], None]


def capture_output(log_fd: int) -> None:
    """Have everything that Python code prints and logs go to `log_fd`, attributed."""
    sink = capture_streams(log_fd)
    # Not a handler of the root logger: that would turn the user's `basicConfig` into a no-op.
    logging.lastResort = _LastResort(sink)
    _capture_stream_handlers(sink)
    warnings.showwarning = _ShowWarning(sink)


def level_of(number: int) -> str:
    """Return which of the five levels a level of `logging` counts as."""
    return next((name for least, name in _LEVELS if number >= least), "debug")


def fields_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """Return what `extra` has added to a record, as JSON can hold it, bounded."""
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if not extra:
        return None
    fields: dict[str, Any] = {}
    left = MAX_FIELDS_CHARACTERS
    for name in list(extra)[:MAX_FIELDS]:
        value, size = _bounded(extra[name])
        if size > left:
            value, size = "…", 1
        fields[name[:MAX_VALUE_CHARACTERS]] = value
        left -= size
    return fields


def _bounded(value: object) -> tuple[Any, int]:
    """Return a value as JSON can hold it, and how long it is there."""
    if isinstance(value, str):
        return value[:MAX_VALUE_CHARACTERS], min(len(value), MAX_VALUE_CHARACTERS)
    try:
        text = json.dumps(value, default=repr, skipkeys=True)
        if len(text) <= MAX_VALUE_CHARACTERS:
            return json.loads(text), len(text)
        text = repr(value)[:MAX_VALUE_CHARACTERS]
    except Exception as error:  # noqa: BLE001 - a user's `__repr__` may do anything
        text = f"<{type(value).__name__}: not shown, {type(error).__name__}>"
    return text, len(text)


def _emit(sink: Sink, handler: logging.Handler, record: logging.LogRecord) -> None:
    """Write a record that a handler would have printed."""
    formatter = handler.formatter or _plain_formatter
    if type(formatter).format is logging.Formatter.format:
        text, fields = _message(formatter, record), fields_of(record)
    else:
        text, fields = handler.format(record), None
    sink.emit(
        level_of(record.levelno),
        text,
        current.get(),
        stream="logging",
        logger=record.name,
        fields=fields,
    )


def _message(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Return the message with its traceback; time, level and name are members of their own."""
    parts = [record.getMessage()]
    if record.exc_info and record.exc_info[1] is not None:
        parts.append(record.exc_text or formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _capture_stream_handlers(sink: Sink) -> None:
    emit = cast("_Emit", cast("Any", logging.StreamHandler).emit)
    original: _Emit = getattr(emit, "fluvial_original", emit)

    def captured(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        if not _is_captured(handler.stream):
            original(handler, record)
            return
        try:
            _emit(sink, handler, record)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            handler.handleError(record)

    cast("Any", captured).fluvial_original = original  # a fork captures anew
    cast("Any", logging.StreamHandler).emit = captured


def _is_captured(stream: object) -> bool:
    # A handler made before the capture, in a zygote, holds the interpreter's own streams.
    return isinstance(stream, LineStream) or stream is sys.__stdout__ or stream is sys.__stderr__


class _LastResort(logging.Handler):
    """What `logging` uses when the user has configured no handler."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(logging.NOTSET)  # the loggers' levels decide; the root's is WARNING
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        _emit(self._sink, self, record)


class _ShowWarning:
    """What `warnings` calls to show one."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def __call__(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
            return
        self._sink.emit(
            "warning",
            f"{category.__name__}: {message}",
            current.get(),
            stream="stderr",
            logger=_WARNINGS,
            fields={"file": filename, "line": lineno},
        )
