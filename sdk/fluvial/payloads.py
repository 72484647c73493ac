"""Opening the payloads of a run's events: for callers of `Run.events()`, and for people."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluvial.codec import decode, decode_bare
from fluvial.error_payloads import describe_error
from fluvial.errors import DecryptionError, SerializationError
from fluvial.events import Event, EventType
from fluvial.hook_operations import answer_id
from fluvial.invocations import Revealed, Unreadable
from fluvial.stream_entries import place_of_chunk

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
    EventType.HOOK_OPENED: "hook_metadata",
    EventType.HOOK_ANSWERED: "hook_answer",
    EventType.STATE_PUBLISHED: "state",
    EventType.CHILD_SCHEDULED: "input",
    EventType.CHILD_COMPLETED: "result",
    EventType.CHILD_FAILED: "error",
    EventType.RUN_CONTINUED: "input",
    EventType.STREAM_CHUNK: "chunk",
}
_OF_OTHERS = frozenset(
    {
        EventType.CHILD_SCHEDULED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
        EventType.RUN_CONTINUED,
    }
)  # sealed for the run that their meta names


@dataclass(frozen=True, slots=True)
class SealedPlace:
    """Where a payload belongs in its run, or in the run `run_id` for which it was sealed."""

    kind: Kind
    correlation: int | str = 0
    index: int = 0
    run_id: str | None = None


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
        place = self.place_of(event)
        if place is None:
            return None
        keys = self._keys if place.run_id is None else self._keys.of(place.run_id)
        return keys.open(event.payload, place.kind, place.correlation, place.index)

    def place_of(self, event: Event) -> SealedPlace | None:
        """Return where an event's payload belongs; None where it has none."""
        if event.type is EventType.HOOK_OPENED:
            self._tokens[event.id] = str(event.meta.get("token", ""))
        kind = _KINDS.get(event.type)
        if kind is None or not event.payload:
            return None
        if event.type in _OF_OTHERS:
            return SealedPlace(kind, run_id=str(event.meta.get("run", "")))
        if kind == "hook":
            token = self._tokens.get(event.id) or str(event.meta.get("token", ""))
            return SealedPlace(kind, token)
        if kind == "chunk":
            place = place_of_chunk(str(event.meta["stream"]), event.id, int(event.meta["attempt"]))
            return SealedPlace(kind, place, int(event.meta["index"]))
        if kind == "state":
            return SealedPlace(kind, 0, int(event.meta.get("number", 0)))
        if kind == "hook_answer":
            return SealedPlace(kind, answer_id(event.id, str(event.meta.get("resume", ""))))
        index = int(event.meta.get("attempt", 1)) if kind == "step_error" else 0
        return SealedPlace(kind, event.id, index)

    def value(self, event: Event) -> Any:
        """Return the decoded payload of an event; None where it has none.

        Raises:
            DecryptionError: it was altered, or its key is gone.
            SerializationError: what it holds cannot be decoded.
        """
        plaintext = self.open(event)
        return None if plaintext is None else _shown(event, decode(plaintext))


def render(reader: PayloadReader, events: Iterable[Event]) -> Iterator[Revealed]:
    """Yield a text for people per event: JSON where the value is JSON, else its `repr`.

    A chunk's text is a JSON object that says which of these it is (see `_chunk_text`).
    """
    for event in events:
        try:
            plaintext = reader.open(event)
            yield None if plaintext is None else _text(event, plaintext)
        except (DecryptionError, SerializationError) as error:
            yield Unreadable(error.code, str(error))


def _shown(event: Event, value: Any) -> Any:
    """Return what is shown of a payload: of a hook's, not what only the platform needs."""
    return value.get("metadata") if event.type is EventType.HOOK_OPENED else value


def _text(event: Event, plaintext: bytes) -> str:
    if event.type is EventType.STREAM_CHUNK:
        return _chunk_text(plaintext)
    value = _shown(event, decode_bare(plaintext)[0])
    if isinstance(value, BaseException):
        notes: list[str] = getattr(value, "__notes__", [])
        return "\n".join([describe_error(value), *notes])
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return repr(value)


def _chunk_text(plaintext: bytes) -> str:
    """Return one of {"value": the JSON value}, {"bytes": base64} and {"repr": text}, so that bytes
    arrive as they are where somebody asks for those."""
    value, _ = decode_bare(plaintext)
    if isinstance(value, bytes):
        return json.dumps({"bytes": base64.b64encode(value).decode()})
    try:
        return json.dumps({"value": value}, ensure_ascii=False)
    except (TypeError, ValueError):
        return json.dumps({"repr": repr(value)}, ensure_ascii=False)
