"""A run's event log in a test: its events with their payloads opened, and as text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, cast

from fluvial.error_payloads import describe_error
from fluvial.events import EventType
from fluvial.runs import RunEvent

_MAX_CHARACTERS: Final = 160  # of a value
_QUIET: Final = frozenset(
    {
        "workflow",
        "deployment",
        "invocation",
        "instance",
        "cpu_us",
        "chosen",
        "started_ms",
        "progress",
    }
)


class Log(tuple[RunEvent, ...]):
    """The events of a run, oldest first; `str` of it is for people."""

    __slots__ = ()

    @property
    def types(self) -> list[EventType]:
        """What kinds of event there are, in order."""
        return [event.type for event in self]

    def of(self, event_type: EventType) -> list[RunEvent]:
        """Return the events of one kind."""
        return [event for event in self if event.type is event_type]

    def __str__(self) -> str:
        return "\n".join(log_lines(self))


def log_lines(events: Iterable[RunEvent]) -> list[str]:
    """Return a line of text per event: when (since the start), what, and its values."""
    lines: list[str] = []
    began: datetime | None = None
    for event in events:
        began = began or event.at
        number = str(event.id) if event.id else ""
        head = f"{_since(event.at - began):>14}  {event.type.name:<17}{number:>4}  "
        lines.append((head + _details(event)).rstrip())
    return lines


def _details(event: RunEvent) -> str:
    meta = {name: value for name, value in event.meta.items() if name not in _QUIET and value}
    if event.type is EventType.RUN_STARTED:
        return f"{event.meta.get('workflow', '')}{_call(event.value)}"
    if event.type is EventType.STEP_SCHEDULED:
        return f"{meta.pop('name', '')}{_call(event.value)}{_pairs(meta)}"
    value = "" if event.value is None else _short(event.value)
    return f"{value}{_pairs(meta)}".strip()


def _call(value: Any) -> str:
    """Render the arguments of a stored call."""
    if not isinstance(value, list) or len(cast("list[Any]", value)) != 2:
        return f"({_short(value)})"
    args, kwargs = cast("tuple[list[Any], dict[str, Any]]", value)
    shown = [*map(_short, args), *(f"{name}={_short(v)}" for name, v in kwargs.items())]
    return f"({', '.join(shown)})"


def _pairs(meta: dict[str, Any]) -> str:
    return "".join(f"  {name}={_short(value)}" for name, value in meta.items())


def _short(value: Any) -> str:
    text = describe_error(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"


def _since(elapsed: timedelta) -> str:
    seconds = elapsed.total_seconds()
    days, rest = divmod(seconds, 86_400)
    if not days:
        return f"{rest:.3f} s"
    return f"{int(days)} d {rest:.3f} s"
