"""Records of app logs: what an instance says on its log pipe, checked, and the line that is kept.

An instance is the user's code, so of what it says nothing is believed but that it said it: app,
deployment and instance come from the invoker, the other members are names, numbers and text within
limits, without control characters. It may lie about its own invocations, in its own app's log;
`kind` "instance" is the invoker's alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, cast

from fluvial.log_files import LAST_MS, LEVELS, time_text

MAX_MESSAGE_CHARACTERS: Final = 64 * 1024
MAX_FIELDS: Final = 64
MAX_FIELDS_CHARACTERS: Final = 16 * 1024
INSTANCE_KIND: Final = "instance"
_STREAMS: Final = ("stdout", "stderr", "logging", "system", "raw")
_KINDS: Final = ("http", "turn", "step")
_MAX_NAME_CHARACTERS: Final = 256
_MAX_DEPTH: Final = 6
_MAX_NUMBER: Final = 2**53
_MEMBERS: Final = 12
# C0 without tab and newline, DEL, C1: what makes a terminal do things.
_CONTROL: Final = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])
_CONTROL_IN_NAMES: Final = {**_CONTROL, 9: " ", 10: " "}
_CUT: Final = "…"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One record. Members that are None stand in no line."""

    level: str
    message: str
    at_ms: int | None = None  # None: now
    deployment: str | None = None
    instance: str | None = None
    invocation: str | None = None
    kind: str | None = None
    function: str | None = None
    run: str | None = None
    step: int | None = None
    attempt: int | None = None
    stream: str = "system"
    logger: str | None = None
    fields: dict[str, Any] | None = None


def encode_record(record: LogRecord, app: str, at_ms: int) -> bytes:
    """Return the line of an app's log that holds a record, with the time at which it stands."""
    members = {
        "time": time_text(at_ms),
        "level": record.level,
        "app": app,
        "deployment": record.deployment,
        "instance": record.instance,
        "invocation": record.invocation,
        "kind": record.kind,
        "function": record.function,
        "run": record.run,
        "step": record.step,
        "attempt": record.attempt,
        "stream": record.stream,
        "logger": record.logger,
        "message": record.message,
        "fields": record.fields,
    }
    present = {name: value for name, value in members.items() if value is not None}
    text = json.dumps(present, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def parse_structured(data: bytes, *, deployment: str, instance: str) -> LogRecord | None:
    """Return what a structured line of an instance says; None: it is not one after all.

    The line is an array, see `fluvial_invoker.instance.output`."""
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list) or len(cast("list[Any]", found)) != _MEMBERS:
        return None
    at_ms, level, stream, invocation, kind, function, run, step, attempt, logger, text, fields = (
        cast("list[Any]", found)
    )
    if not isinstance(at_ms, int) or not 0 <= at_ms <= LAST_MS or not isinstance(text, str):
        return None
    return LogRecord(
        at_ms=at_ms,
        level=level if level in LEVELS else "info",
        deployment=deployment,
        instance=instance,
        invocation=_name(invocation),
        kind=kind if kind in _KINDS else None,
        function=_name(function),
        run=_name(run),
        step=_number(step),
        attempt=_number(attempt),
        stream=stream if stream in _STREAMS else "raw",
        logger=_name(logger),
        message=clean(text),
        fields=clean_fields(fields),
    )


def clean(text: str) -> str:
    """Return text without control characters, within the limit."""
    text = text[:MAX_MESSAGE_CHARACTERS]
    # Most text has none, and a look is a fraction of a translation.
    return text if text.isprintable() else text.translate(_CONTROL)


def clean_fields(value: object) -> dict[str, Any] | None:
    """Return fields without control characters, within the limits; None: there are none."""
    if not isinstance(value, dict) or not value:
        return None
    kept: dict[str, Any] = {}
    left = MAX_FIELDS_CHARACTERS
    for name, content in cast("dict[str, Any]", value).items():
        if len(kept) >= MAX_FIELDS:
            break
        cleaned = _content(content, _MAX_DEPTH)
        size = len(name) + len(json.dumps(cleaned))
        kept[_name(name) or ""] = cleaned if size <= left else _CUT
        left -= min(size, left)
    return kept


def _name(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    name = value[:_MAX_NAME_CHARACTERS]
    return name if name.isprintable() else name.translate(_CONTROL_IN_NAMES)


def _number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_NUMBER else None


def _content(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, float) and not abs(value) < float("inf"):  # no JSON has these
        return str(value)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return _CUT
    if isinstance(value, list):
        return [_content(item, depth - 1) for item in cast("list[Any]", value)]
    pairs = cast("dict[str, Any]", value).items()
    return {_name(name): _content(item, depth - 1) for name, item in pairs}
