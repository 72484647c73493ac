"""Opening the payloads of a run's events: for callers of `Run.events()`, and for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from fluvial.codec import decode, decode_bare
from fluvial.error_payloads import describe_error
from fluvial.errors import DecryptionError, SerializationError
from fluvial.events import Event, EventType

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys
    from fluvial.sealing import Kind

_KINDS: dict[EventType, Kind] = {
    EventType.RUN_STARTED: "input",
    EventType.STEP_SCHEDULED: "step_input",
    EventType.STEP_COMPLETED: "step_result",
    EventType.STEP_FAILED: "step_error",
    EventType.STEP_RETRYING: "step_error",
    EventType.RUN_COMPLETED: "result",
    EventType.RUN_FAILED: "error",
    EventType.HOOK_RECEIVED: "hook",
    EventType.STATE_PUBLISHED: "state",
    EventType.CHILD_SCHEDULED: "input",
    EventType.CHILD_COMPLETED: "result",
    EventType.CHILD_FAILED: "error",
    EventType.RUN_CONTINUED: "input",
}
_OF_OTHERS = frozenset(
    {
        EventType.CHILD_SCHEDULED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
        EventType.RUN_CONTINUED,
    }
)  # sealed for the run that their meta names


class PayloadReader:
    """Opens the payloads of one run's events, given in log order.

    A hook's payload is bound to its token, which stands in an earlier event: the reader remembers.
    A reader that did not see that event goes by the payload's own meta.
    """

    def __init__(self, keys: RunKeys) -> None:
        self._keys = keys
        self._tokens: dict[int, str] = {}

    def open(self, event: Event) -> bytes | None:
        """Return the plaintext of an event's payload; None where it has none.

        Raises:
            DecryptionError: it was altered, or its key is gone.
        """
        if event.type is EventType.HOOK_OPENED:
            self._tokens[event.id] = str(event.meta.get("token", ""))
        kind = _KINDS.get(event.type)
        if kind is None or not event.payload:
            return None
        if kind == "hook":
            token = self._tokens.get(event.id) or str(event.meta.get("token", ""))
            return self._keys.open(event.payload, kind, token)
        if event.type in _OF_OTHERS:
            return self._keys.of(str(event.meta.get("run", ""))).open(event.payload, kind)
        if kind == "state":
            return self._keys.open(event.payload, kind, 0, int(event.meta.get("number", 0)))
        index = int(event.meta.get("attempt", 1)) if kind == "step_error" else 0
        return self._keys.open(event.payload, kind, event.id, index)

    def value(self, event: Event) -> Any:
        """Return the decoded payload of an event; None where it has none.

        Raises:
            DecryptionError: it was altered, or its key is gone.
            SerializationError: what it holds cannot be decoded.
        """
        plaintext = self.open(event)
        return None if plaintext is None else decode(plaintext)


def render(reader: PayloadReader, events: Iterable[Event]) -> Iterator[str | None]:
    """Yield a text for people per event: JSON where the value is JSON, else its `repr`."""
    for event in events:
        try:
            plaintext = reader.open(event)
            yield None if plaintext is None else _text(plaintext)
        except (DecryptionError, SerializationError) as error:
            yield f"<{error}>"


def _text(plaintext: bytes) -> str:
    value, _ = decode_bare(plaintext)
    if isinstance(value, BaseException):
        notes: list[str] = getattr(value, "__notes__", [])
        return "\n".join([describe_error(value), *notes])
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)
