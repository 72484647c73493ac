"""Exceptions as data: class name, arguments, text, traceback text and chain of causes.

Only builtin exceptions and Fluvial's own are rebuilt as themselves. Every other class comes back
as a `RemoteError` that carries its name and text: running a user's constructor on recorded data
could do anything. The traceback travels as text and is attached as a note.
"""

from __future__ import annotations

import builtins
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from fluvial import errors
from fluvial.errors import FluvialError, RemoteError

MAX_TRACEBACK_CHARACTERS: Final = 16 * 1024
MAX_TEXT_CHARACTERS: Final = 8 * 1024
MAX_CHAIN: Final = 8
MAX_NOTES: Final = 8
_NOTE: Final = "remote traceback (most recent call last):\n"
_HIDDEN: Final = frozenset({"__notes__"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """One exception of a chain."""

    name: str  # module:qualname
    arguments: tuple[Any, ...]
    state: dict[str, Any]
    text: str
    traceback: str
    notes: tuple[str, ...] = ()


def describe(error: BaseException) -> Iterator[FailureRecord]:
    """Yield `error` and what caused it, outermost first, at most MAX_CHAIN of them."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen and len(seen) < MAX_CHAIN:
        seen.add(id(current))
        yield _record(current)
        if current.__cause__ is not None or current.__suppress_context__:
            current = current.__cause__
        else:
            current = current.__context__


def rebuild(chain: list[FailureRecord]) -> BaseException:
    """Return the outermost exception of a chain that `describe` made, linked to its causes."""
    cause: BaseException | None = None
    for record in reversed(chain):
        error = _instance(record)
        error.__cause__ = cause
        for note in record.notes:
            error.add_note(note)
        if record.traceback:
            error.add_note(_NOTE + record.traceback)
        cause = error
    return cause if cause is not None else RemoteError("unknown", "")


def _record(error: BaseException) -> FailureRecord:
    cls = type(error)
    own = isinstance(error, FluvialError) and cls.__module__ == errors.__name__
    return FailureRecord(
        name=f"{cls.__module__}:{cls.__qualname__}",
        arguments=error.args,
        state={k: v for k, v in vars(error).items() if k not in _HIDDEN} if own else {},
        text=_text(error)[:MAX_TEXT_CHARACTERS],
        traceback=_traceback(error),
        notes=_notes(error),
    )


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - __str__ is the user's code
        return f"<its __str__ raised {type(broken).__name__}>"


def _notes(error: BaseException) -> tuple[str, ...]:
    """What was added to it, the traceback of an earlier crossing included."""
    notes: list[Any] = getattr(error, "__notes__", [])
    return tuple(str(note)[-MAX_TRACEBACK_CHARACTERS:] for note in notes[:MAX_NOTES])


def _traceback(error: BaseException) -> str:
    """The frames only: the last line (class and text) is recorded on its own."""
    if error.__traceback__ is None:
        return ""
    return "".join(traceback.format_tb(error.__traceback__))[-MAX_TRACEBACK_CHARACTERS:]


def _instance(record: FailureRecord) -> BaseException:
    module, _, qualname = record.name.partition(":")
    known: object = None
    if module == "builtins":
        known = getattr(builtins, qualname, None)
    elif module == errors.__name__:
        known = getattr(errors, qualname, None)
    if isinstance(known, type) and issubclass(known, Exception):
        rebuilt = _construct(known, record)
        if rebuilt is not None:
            return rebuilt
    return RemoteError(f"{module}.{qualname}", record.text)


def _construct(cls: type[Exception], record: FailureRecord) -> Exception | None:
    if issubclass(cls, FluvialError):
        # Not through __init__: its signature is (path, reason) or the like, not `args`.
        error = cast("Exception", cls.__new__(cls))
        error.args = record.arguments
        error.__dict__.update(record.state)
        return error
    try:
        return cls(*record.arguments)
    except Exception:  # noqa: BLE001 - a builtin that refuses these arguments: RemoteError instead
        return None
