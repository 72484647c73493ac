"""Checks what an instance proposes: it may ask only for what a workflow can ask for.

An instance runs user code, so its answers are hostile input. Whatever passes here can be appended
to the log without harm to anything but the run itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from fluvial.errors import FluvialError, WireError
from fluvial.events import OUTPUTS, TERMINAL, Event, EventType, decode_event
from fluvial_queue.contract import MAX_VALUE_BYTES
from fluvial_queue.views import RunView

MAX_DELAY_MS = 100 * 365 * 24 * 3600 * 1000  # a hundred years
MAX_NAME_CHARACTERS = 256
MAX_TOKEN_CHARACTERS = 512
MAX_FRAMING_BYTES = 64 * 1024  # of an event, beside its payload
MAX_TIME_MS = 253_402_300_799_000  # the last moment that datetime can name

_BINARY = frozenset({0xC4, 0xC5, 0xC6})  # msgpack's bin 8, 16 and 32

_OPENS = frozenset({EventType.STEP_SCHEDULED, EventType.TIMER_SET, EventType.HOOK_OPENED})
_STEP_ENDS = frozenset({EventType.STEP_COMPLETED, EventType.STEP_FAILED, EventType.STEP_RETRYING})


class InvalidProposalError(FluvialError):
    """An instance proposed something that no workflow can ask for."""

    code = "invalid_proposal"


def check_outputs(view: RunView, encoded: Sequence[bytes]) -> list[Event]:
    """Return a turn's proposed events, decoded.

    Raises:
        InvalidProposalError: one of them is not an output, refers to nothing, or is out of bounds.
    """
    events: list[Event] = []
    last_id = view.last_id
    for position, data in enumerate(encoded):
        event = _decode(data)
        if event.type not in OUTPUTS:
            raise InvalidProposalError(f"{event.type.name} is not an output")
        if event.type in TERMINAL and position != len(encoded) - 1:
            raise InvalidProposalError("events after the end of the run")
        if event.type in _OPENS:
            if event.id <= last_id:
                raise InvalidProposalError(f"id {event.id} after id {last_id}")
            last_id = event.id
        elif event.type not in TERMINAL and not 0 < event.id <= last_id:
            raise InvalidProposalError(f"{event.type.name} of unknown id {event.id}")
        _check_meta(event)
        events.append(event)
    return events


def check_step_end(step_id: int, data: bytes) -> Event:
    """Return the first event of a step's answer, decoded.

    Raises:
        InvalidProposalError: it is not an end of an attempt of this step.
    """
    event = _decode(data)
    if event.type not in _STEP_ENDS or event.id != step_id:
        raise InvalidProposalError(f"{event.type.name} of {event.id} as the end of step {step_id}")
    if event.type is EventType.STEP_RETRYING:
        _check_number(event, "delay_ms", MAX_DELAY_MS)
    return event


def _decode(data: bytes) -> Event:
    if len(data) > MAX_VALUE_BYTES:
        raise InvalidProposalError(f"an event of {len(data)} bytes is above {MAX_VALUE_BYTES}")
    if len(data) > MAX_FRAMING_BYTES and _framing_bytes(data) > MAX_FRAMING_BYTES:
        raise InvalidProposalError(f"an event has at most {MAX_FRAMING_BYTES} bytes of meta data")
    try:
        event = decode_event(data)
    except WireError as error:
        raise InvalidProposalError("not an event") from error
    if not 0 <= event.at_ms <= MAX_TIME_MS:
        raise InvalidProposalError(f"{event.type.name} at a time that no calendar has")
    return event


def _framing_bytes(data: bytes) -> int:
    """Return how much of an event is not payload, without decoding it.

    A payload of many bytes is one object; other bytes may each become one, so they are few.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    try:
        unpacker.feed(data)
        unpacker.read_array_header()
        for _ in range(3):
            unpacker.skip()
        payload_start = unpacker.tell()
        if data[payload_start] not in _BINARY:
            return len(data)
        unpacker.skip()
    except Exception as error:
        raise InvalidProposalError("not an event") from error
    return payload_start + len(data) - unpacker.tell()


def _check_meta(event: Event) -> None:
    if event.type is EventType.STEP_SCHEDULED:
        _check_text(event, "name", MAX_NAME_CHARACTERS)
        _check_number(event, "timeout_ms", MAX_DELAY_MS)
    elif event.type is EventType.TIMER_SET:
        _check_number(event, "delay_ms", MAX_DELAY_MS)
    elif event.type in (EventType.HOOK_OPENED, EventType.HOOK_CLOSED):
        _check_text(event, "token", MAX_TOKEN_CHARACTERS)


def _check_text(event: Event, key: str, limit: int) -> None:
    value: Any = event.meta.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise InvalidProposalError(f"{event.type.name}: {key} is not a text of 1 to {limit}")


def _check_number(event: Event, key: str, limit: int) -> None:
    value: Any = event.meta.get(key)
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise InvalidProposalError(f"{event.type.name}: {key} is not a number of 0 to {limit}")
