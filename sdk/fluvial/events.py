"""The event log's vocabulary: what an event is, and how it is written down.

An event is a msgpack array `[type, at_ms, id, payload, meta]`:

    type     an EventType
    at_ms    the store's time when it happened, in Unix milliseconds (see `EventType`)
    id       which step, timer or hook it belongs to; they count from 1 in the order in which the
             workflow asked for them (one counter for all kinds); 0 for the run itself
    payload  bytes sealed by the instance (`fluvial.encryption`), or empty
    meta     a small map in clear: names, attempts, delays; keys are listed per type below

Inputs are what a workflow consumes, outputs are what it asks for, records are for people and for
the owner. A replay feeds the inputs in log order and checks that the workflow asks for exactly the
recorded outputs in the recorded order.

A workflow's clock is the greatest `at_ms` among the inputs that it has consumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

import msgpack

from fluvial.errors import WireError


class EventType(IntEnum):
    """The kinds of event; the comment lists `payload` and the keys of `meta`."""

    # inputs
    RUN_STARTED = 1  # payload: the run's input; meta: workflow, deployment
    STEP_COMPLETED = 2  # payload: the result; meta: attempt, invocation, cpu_us, instance
    STEP_FAILED = 3  # payload: the error; meta: attempt, invocation, cpu_us, instance, reason;
    #                  the owner's has no payload; meta: attempt, reason (interrupted, deadline),
    #                  cause
    TIMER_FIRED = 4
    HOOK_RECEIVED = 5  # payload; meta: token, resume (id of the resume), ask (True: who sent it
    #                    waits for HOOK_ANSWERED)
    HOOK_CONFLICT = 6  # meta: token, run (that holds it)
    CANCEL_REQUESTED = 7  # meta: reason, by
    CHILD_COMPLETED = 8  # payload: the child's result, sealed for the child; meta: run
    CHILD_FAILED = 9  # payload: the child's error, or none; meta: run, status, reason

    # outputs
    STEP_SCHEDULED = 20  # payload: the arguments; meta: name, timeout_ms (0: none); if it has one:
    #                      deadline_ms (from now to the step's end), once (at most one execution),
    #                      heartbeat_ms, isolated (a map: retries, first_ms, pauses)
    STEP_CANCELLED = 21  # the workflow gave the step up: its invocation is cancelled
    TIMER_SET = 22  # meta: delay_ms
    TIMER_CANCELLED = 23
    HOOK_OPENED = 24  # payload: its metadata, if any; meta: token, chosen (True: the user chose it,
    #                   so it must be claimed); if it has them: name, timeout_ms, schema, webhook
    HOOK_CLOSED = 25  # meta: token
    HOOK_ANSWERED = 26  # payload: the answer, or why there is none; id: the hook's; meta: token,
    #                     resume, ok (False: refused), why (if the runtime did: invalid, closed)
    CHILD_SCHEDULED = 27  # payload: the child's input, sealed for the child; meta: see children
    CHILD_CANCELLED = 28  # the workflow gave the child up: it is cancelled
    STATE_PUBLISHED = 29  # payload: what the run shows of itself; id 0
    TAGS_SET = 33  # meta: tags; id 0
    PATCHED = 34  # meta: patch; id 0: the run takes the new path of an intended change

    # outputs that end the run
    RUN_COMPLETED = 30  # payload: the result
    RUN_FAILED = 31  # payload: the error; meta: reason (a code, never user text)
    RUN_CANCELLED = 32
    RUN_CONTINUED = 35  # payload: the next run's input, sealed for it; meta: run, workflow

    # records of the owner
    STEP_RETRYING = 40  # payload: the error; meta: attempt (the failed one), delay_ms, reason,
    #                     invocation, cpu_us, instance, started_ms (of this execution),
    #                     exhausted (True: no attempt is left, so the run pauses),
    #                     progress (sealed)
    ATTEMPT_LOST = 41  # meta: attempt, lost, reason (instance_died, owner_changed, heartbeat, …),
    #                    started_ms, progress (sealed)
    STEP_ABANDONED = 42  # meta: attempt; by a terminate
    RUN_TERMINATED = 43  # meta: reason
    RUN_PAUSED = 44  # meta: reason, by, code (of the trouble, where nobody asked for the pause)
    RUN_RESUMED = 45  # meta: by, deployment (where it goes on from now, if that changed)
    TURN_LOST = 46  # meta: attempt, reason
    RUN_FORKED = 47  # meta: origin (a run id), events (of its log, before this), by (if known)
    TAGS_CHANGED = 48  # meta: tags, by; from outside

    # never in a log: what a reveal is asked to open beside a log's events
    STREAM_CHUNK = 60  # payload: a chunk of the step `id`; meta: stream, attempt, index


INPUTS: Final = frozenset(t for t in EventType if t < 20)
OUTPUTS: Final = frozenset(t for t in EventType if 20 <= t < 40)
TERMINAL: Final = frozenset(
    {
        EventType.RUN_COMPLETED,
        EventType.RUN_FAILED,
        EventType.RUN_CANCELLED,
        EventType.RUN_TERMINATED,
        EventType.RUN_CONTINUED,
    }
)


_FIELDS: Final = 5
_NIL: Final = b"\xc0"  # msgpack's None


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of an event log."""

    type: EventType
    at_ms: int
    id: int = 0
    payload: bytes = b""
    meta: dict[str, Any] = field(default_factory=dict[str, Any])

    def encode(self) -> bytes:
        """Return the bytes that stand in the log."""
        return msgpack.packb((int(self.type), self.at_ms, self.id, self.payload, self.meta))


Fields = tuple[int, int, int, bytes, dict[str, Any]]
"""An event as hot loops have it, without enum and dataclass: type, at_ms, id, payload, meta."""


def unpack_log(encoded: Sequence[bytes]) -> list[Fields]:
    """Return the fields of a whole log's events: for each a third cheaper than `unpack_event`.

    That every entry holds one event is not checked, only that all hold as many as there are.

    Raises:
        WireError: they do not.
    """
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=0)
    try:
        unpacker.feed(b"".join(encoded) + _NIL)
        *events, end = unpacker
    except Exception as error:
        raise WireError("not a log of events") from error
    is_whole = end is None and len(events) == len(encoded)  # else the end is part of an event
    if not is_whole or any(e.__class__ is not tuple or len(e) != _FIELDS for e in events):
        raise WireError("not a log of events")
    return events


def unpack_event(data: bytes) -> Fields:
    """Return the fields of an encoded event.

    Raises:
        WireError: `data` is not an event.
    """
    try:
        fields: Any = msgpack.unpackb(data, use_list=False)
    except Exception as error:
        raise WireError("not an event") from error
    # Not `type()`, which narrows to a tuple of unknowns: a cast costs as much as a look-up here.
    if fields.__class__ is not tuple or len(fields) != _FIELDS:
        raise WireError("not an event")
    event: Fields = fields
    return event


def pack_event(
    event_type: int, at_ms: int, correlation: int, payload: bytes, meta: dict[str, Any]
) -> bytes:
    """Return what `Event(...).encode()` would, without making the event."""
    return msgpack.packb((event_type, at_ms, correlation, payload, meta))


def decode_event(data: bytes) -> Event:
    """Return the event that `data` holds.

    Raises:
        WireError: `data` is not an event.
    """
    try:
        type_number, at_ms, correlation, payload, meta = msgpack.unpackb(data)
        event_type = EventType(type_number)
    except Exception as error:
        raise WireError("not an event") from error
    # Exact types: `bytes(n)` and `int("9")` would make something of what is not an event.
    if (type(at_ms), type(correlation), type(payload), type(meta)) != (int, int, bytes, dict):
        raise WireError("not an event")
    return Event(event_type, at_ms, correlation, payload, meta)
