"""Checks what an instance proposes: it may ask only for what a workflow can ask for.

An instance runs user code, so its answers are hostile input. Whatever passes here can be appended
to the log without harm to anything but the run itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgpack

from fluvial.errors import FluvialError, InvalidRequestError, WireError
from fluvial.events import OUTPUTS, TERMINAL, Event, EventType, decode_event
from fluvial.ids import continued_run_id, is_derived, partition_of
from fluvial.invocations import MAX_PROGRESS_BYTES
from fluvial_queue.contract import MAX_VALUE_BYTES
from fluvial_queue.effects import LATEST, POLICIES
from fluvial_queue.views import OPENS, RunView, merged_tags

MAX_DELAY_MS = 100 * 365 * 24 * 3600 * 1000  # a hundred years
MAX_NAME_CHARACTERS = 256
MAX_TOKEN_CHARACTERS = 512
MAX_RESUME_CHARACTERS = 512
MAX_TAGS = 64  # as many as Vercel's attributes
MAX_TAG_CHARACTERS = 256
MAX_PRIORITY = 100
MAX_FRAMING_BYTES = 64 * 1024  # of an event, beside its payload
MAX_TIME_MS = 253_402_300_799_000  # the last moment that datetime can name

_BINARY = frozenset({0xC4, 0xC5, 0xC6})  # msgpack's bin 8, 16 and 32

_OF_THE_RUN = frozenset(
    {*TERMINAL, EventType.STATE_PUBLISHED, EventType.TAGS_SET, EventType.PATCHED}
)  # they belong to no operation
_OF_HOOKS = frozenset({EventType.HOOK_OPENED, EventType.HOOK_CLOSED, EventType.HOOK_ANSWERED})
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
        if event.type in OPENS:
            if event.id <= last_id:
                raise InvalidProposalError(f"id {event.id} after id {last_id}")
            last_id = event.id
        elif event.type not in _OF_THE_RUN and not 0 < event.id <= last_id:
            raise InvalidProposalError(f"{event.type.name} of unknown id {event.id}")
        _check_meta(view, event)
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
    if "reason" in event.meta:
        _check_text(event, "reason", MAX_NAME_CHARACTERS)
    if event.type is EventType.STEP_RETRYING:
        _check_number(event, "delay_ms", MAX_DELAY_MS)
        progress: Any = event.meta.get("progress", b"")
        if not isinstance(progress, bytes) or len(progress) > MAX_PROGRESS_BYTES:
            raise InvalidProposalError(f"a progress is not {MAX_PROGRESS_BYTES} bytes at most")
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


def _check_meta(view: RunView, event: Event) -> None:
    if event.type is EventType.STEP_SCHEDULED:
        _check_text(event, "name", MAX_NAME_CHARACTERS)
        _check_number(event, "timeout_ms", MAX_DELAY_MS)
        for key in ("deadline_ms", "heartbeat_ms"):
            if key in event.meta:
                _check_number(event, key, MAX_DELAY_MS)
        if "isolated" in event.meta:
            _check_isolated(event.meta["isolated"])
    elif event.type is EventType.TIMER_SET:
        _check_number(event, "delay_ms", MAX_DELAY_MS)
    elif event.type is EventType.PATCHED:
        _check_text(event, "patch", MAX_NAME_CHARACTERS)
        if event.id or event.payload:
            raise InvalidProposalError("PATCHED with an id or a payload")
    elif event.type in _OF_HOOKS:
        _check_text(event, "token", MAX_TOKEN_CHARACTERS)
        if event.type is EventType.HOOK_ANSWERED:
            _check_text(event, "resume", MAX_RESUME_CHARACTERS)
    elif event.type is EventType.CHILD_SCHEDULED:
        _check_child(view, event)
    elif event.type is EventType.TAGS_SET:
        change = check_tags(event.meta.get("tags"))
        if len(merged_tags(view.tags, change)) > MAX_TAGS:
            raise InvalidProposalError(f"TAGS_SET: a run has at most {MAX_TAGS} tags")
    elif event.type is EventType.RUN_CONTINUED:
        if event.meta.get("run") != continued_run_id(view.run_id):
            raise InvalidProposalError("RUN_CONTINUED: run is not the next run's id")
        _check_deployment(event)


def _check_child(view: RunView, event: Event) -> None:
    meta = event.meta
    for name in ("run", "workflow"):
        _check_text(event, name, MAX_NAME_CHARACTERS)
    key = meta.get("key", "")
    parts = (view.app, meta["workflow"], key) if key else ("child", view.run_id, str(event.id))
    if not (isinstance(key, str) and _is_derived(meta["run"], parts)):
        raise InvalidProposalError("CHILD_SCHEDULED: run is not the id of this child")
    if meta.get("policy") not in POLICIES:
        raise InvalidProposalError(f"CHILD_SCHEDULED: policy is none of {sorted(POLICIES)}")
    for name in ("delay_ms", "deadline_ms", "retention_ms"):
        if name in meta:
            _check_number(event, name, MAX_DELAY_MS)
    if not -MAX_PRIORITY <= _whole(event, "priority") <= MAX_PRIORITY:
        raise InvalidProposalError(f"CHILD_SCHEDULED: priority is above {MAX_PRIORITY}")
    _check_deployment(event)
    check_tags(meta.get("tags", {}))


def _is_derived(run_id: str, parts: tuple[str, ...]) -> bool:
    try:
        partition_of(run_id)
    except InvalidRequestError:
        return False
    return is_derived(run_id, *parts)


def _check_deployment(event: Event) -> None:
    """An instance may ask for the newest deployment, and for no other than its own."""
    if event.meta.get("deployment", LATEST) != LATEST:
        raise InvalidProposalError(f"{event.type.name}: deployment is not {LATEST!r}")


def check_tags(tags: Any) -> dict[str, str | None]:
    """Return a change of tags: names to texts, or None to take one away.

    Raises:
        InvalidProposalError: it is something else, or too much.
    """
    if not isinstance(tags, dict) or len(cast("dict[Any, Any]", tags)) > MAX_TAGS:
        raise InvalidProposalError(f"tags are not a map of at most {MAX_TAGS}")
    for name, value in cast("dict[Any, Any]", tags).items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TAG_CHARACTERS:
            raise InvalidProposalError(f"a tag's name has not 1 to {MAX_TAG_CHARACTERS} characters")
        if value is not None and not (isinstance(value, str) and len(value) <= MAX_TAG_CHARACTERS):
            raise InvalidProposalError(f"tag {name}: not a text of {MAX_TAG_CHARACTERS} characters")
    return cast("dict[str, str | None]", tags)


def _whole(event: Event, key: str) -> int:
    value: Any = event.meta.get(key, 0)
    if not isinstance(value, int):
        raise InvalidProposalError(f"{event.type.name}: {key} is not a number")
    return value


def _check_isolated(rules: Any) -> None:
    """The owner itself goes by these rules when the step's process has ended."""
    known = cast("dict[str, Any]", rules) if isinstance(rules, dict) else {}
    numbers = [known.get(key) for key in ("retries", "first_ms")]
    are_numbers = all(isinstance(n, int) and 0 <= n <= MAX_DELAY_MS for n in numbers)
    if not are_numbers or not isinstance(known.get("pauses"), bool):
        raise InvalidProposalError("STEP_SCHEDULED: isolated is not retries, first_ms and pauses")


def _check_text(event: Event, key: str, limit: int) -> None:
    value: Any = event.meta.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= limit:
        raise InvalidProposalError(f"{event.type.name}: {key} is not a text of 1 to {limit}")


def _check_number(event: Event, key: str, limit: int) -> None:
    value: Any = event.meta.get(key)
    if not isinstance(value, int) or not 0 <= value <= limit:
        raise InvalidProposalError(f"{event.type.name}: {key} is not a number of 0 to {limit}")
