"""What the body and `meta` of INVOKE and ANSWER frames hold, as values.

Three kinds of invocation travel in INVOKE: a *turn*, a *step* and a *reveal* (decrypt for people).
The dispatcher builds the request, the instance builds the answer, `to_frame_fields`/`from_frame`
on each class are the only places that know the map's keys. A list of events in a body is a msgpack
array of byte strings.

Outcomes of an answer:

    ok         the events are the proposal
    not_live   only for a turn: the named coroutine is not here; send the log (no attempt spent)
    cancelled  the invocation ended because of a CANCEL frame; nothing is proposed
    diverged   a replay did not match the log; `meta["reason"]` says how; nothing is proposed
    blocked    nothing can be done with the app's keys as they are (one is missing or was destroyed,
               or they are frozen); `meta["reason"]` is a code and a text; nothing is proposed
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Literal, cast

import msgpack

from fluvial.errors import WireError

Outcome = Literal["ok", "not_live", "cancelled", "diverged", "blocked"]
OUTCOMES: Final = frozenset({"ok", "not_live", "cancelled", "diverged", "blocked"})
TURN_ID_BYTES: Final = 8
MAX_EVENTS_PER_ANSWER: Final = 10_000
MAX_EVENTS: Final = 1_000_000  # of one body
MAX_TURN_ID_BYTES: Final = 64
MAX_REASON_CHARACTERS: Final = 4096
MAX_PROGRESS_BYTES: Final = 16 * 1024  # of a step's progress, sealed
_REPORT_SECONDS: Final = 10.0  # between two reports of a step that need not beat


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """Advance a run's workflow by its unconsumed inputs.

    With `turn_id`, the live coroutine of that turn is continued with `events` (the unconsumed
    inputs only). Without, `events` is the whole log up to the base and the workflow is replayed;
    inputs after the first `consumed` ones of the log are new.
    """

    run_id: str
    app: str
    workflow: str
    turn_id: bytes | None
    consumed: int  # how many inputs of the log earlier turns have consumed
    now_ms: int  # the store's time at dispatch
    events: Sequence[bytes]
    partitions: int = 1  # of the store; the ids of child runs need it

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {
            "run": self.run_id,
            "app": self.app,
            "workflow": self.workflow,
            "turn": self.turn_id,
            "consumed": self.consumed,
            "now": self.now_ms,
            "partitions": self.partitions,
        }
        return "turn", meta, pack_events(self.events)

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> TurnRequest:
        return cls(
            run_id=meta["run"],
            app=meta["app"],
            workflow=meta["workflow"],
            turn_id=meta["turn"],
            consumed=meta["consumed"],
            now_ms=meta["now"],
            events=unpack_events(body),
            partitions=meta.get("partitions", 1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHistory:
    """What a step's earlier executions have left behind for the next one."""

    started_ms: int = 0  # when the first of them began; 0: not known
    error: bytes = b""  # the sealed error of the attempt before, where it is small
    forgiven: int = 0  # attempts that do not count any more: a resume gave the step new ones
    progress: bytes = b""  # what one of them has reported last, sealed

    def to_map(self) -> dict[str, Any]:
        return {
            "started": self.started_ms,
            "error": self.error,
            "forgiven": self.forgiven,
            "progress": self.progress,
        }

    @classmethod
    def from_map(cls, fields: dict[str, Any]) -> StepHistory:
        return cls(
            started_ms=fields["started"],
            error=fields["error"],
            forgiven=fields["forgiven"],
            progress=fields["progress"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRequest:
    """Execute one attempt of a step; with `carry` also take the next turn if it is live here."""

    run_id: str
    app: str
    workflow: str
    step: str
    id: int
    attempt: int  # counts from 1
    invocation: str
    timeout_ms: int  # 0: none
    now_ms: int
    carry: bytes | None  # the turn id of the coroutine that may go on
    input: bytes  # the payload of STEP_SCHEDULED
    history: StepHistory | None = None  # None: this is its first execution
    expires_ms: int = 0  # when the step must have ended, by the store's clock; 0: never

    @property
    def spent(self) -> int:
        """How many of the step's attempts this one is the last of, without those forgiven."""
        return self.attempt if self.history is None else self.attempt - self.history.forgiven

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta: dict[str, Any] = {
            "run": self.run_id,
            "app": self.app,
            "workflow": self.workflow,
            "step": self.step,
            "id": self.id,
            "attempt": self.attempt,
            "invocation": self.invocation,
            "timeout": self.timeout_ms,
            "now": self.now_ms,
            "carry": self.carry,
        }
        if self.history is not None:
            meta["history"] = self.history.to_map()
        if self.expires_ms:
            meta["expires"] = self.expires_ms
        return "step", meta, self.input

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> StepRequest:
        return cls(
            run_id=meta["run"],
            app=meta["app"],
            workflow=meta["workflow"],
            step=meta["step"],
            id=meta["id"],
            attempt=meta["attempt"],
            invocation=meta["invocation"],
            timeout_ms=meta["timeout"],
            now_ms=meta["now"],
            carry=meta["carry"],
            input=body,
            history=StepHistory.from_map(meta["history"]) if "history" in meta else None,
            expires_ms=meta.get("expires", 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RevealRequest:
    """Decrypt the payloads of a run's events for a person who may read them.

    The answer's body is what `pack_revealed` makes of one item per event.
    """

    run_id: str
    app: str
    workflow: str
    events: Sequence[bytes]

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {"run": self.run_id, "app": self.app, "workflow": self.workflow}
        return "reveal", meta, pack_events(self.events)

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> RevealRequest:
        return cls(
            run_id=meta["run"],
            app=meta["app"],
            workflow=meta["workflow"],
            events=unpack_events(body),
        )


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a payload cannot be shown: the code of an error, and its text."""

    code: str
    message: str


Revealed = str | Unreadable | None
"""What a reveal says of one event: its payload (JSON or a `repr`); None: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an instance proposes after a turn or a step.

    A turn's events are outputs in the order in which the workflow asked for them. A step's first
    event is STEP_COMPLETED, STEP_FAILED or STEP_RETRYING; after the first two, the outputs of a
    carried-over turn may follow, and then `turn_id` is set.
    """

    outcome: Outcome
    turn_id: bytes | None = None  # the identity of the coroutine after this turn
    events: Sequence[bytes] = ()
    reason: str = ""  # for `diverged` and `blocked`: for people, without user data

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {"turn": self.turn_id, "reason": self.reason}
        return self.outcome, meta, pack_events(self.events)

    @classmethod
    def from_frame(cls, outcome: str, meta: dict[str, Any], body: bytes) -> Answer:
        if outcome not in OUTCOMES:
            raise WireError(f"unknown outcome {outcome!r}")
        events = unpack_events(body, at_most=MAX_EVENTS_PER_ANSWER)
        return cls(
            outcome=cast("Outcome", outcome),  # checked against OUTCOMES above
            turn_id=_turn_id(meta.get("turn")),
            events=events,
            reason=_reason(meta.get("reason", "")),
        )


def report_seconds(heartbeat_ms: int) -> float:
    """Return how long at least lies between two HEARTBEAT frames of a step."""
    return max(heartbeat_ms / 4000, 1.0) if heartbeat_ms else _REPORT_SECONDS


def pack_events(events: Sequence[bytes]) -> bytes:
    """Return one body that holds all of `events`."""
    return msgpack.packb(list(events))


def unpack_events(body: bytes, *, at_most: int = MAX_EVENTS) -> list[bytes]:
    """Return the byte strings of a body made by `pack_events`.

    Raises:
        WireError: `body` is something else, or has more than `at_most` of them.
    """
    items = unpack_list(body, at_most=at_most)
    if not all(isinstance(item, bytes) for item in items):
        raise WireError("not a list of events")
    return items


def pack_revealed(items: Iterable[Revealed]) -> bytes:
    """Return the body of a reveal's answer: text, nil, or as bytes why there is no text."""
    return msgpack.packb(
        [f"{i.code} {i.message}".encode() if isinstance(i, Unreadable) else i for i in items]
    )


def unpack_revealed(body: bytes) -> list[Revealed]:
    """Return the items of a body made by `pack_revealed`.

    Raises:
        WireError: `body` is something else.
    """
    return [_revealed(item) for item in unpack_list(body, at_most=MAX_EVENTS)]


def unpack_list(body: bytes, *, at_most: int) -> list[Any]:
    """Return the items of a msgpack array; each is a plain value or an empty container.

    Hostile bytes cost no more memory than they have, times a small number: a decoder that is left
    to itself makes of one byte an object of sixty.

    Raises:
        WireError: `body` is something else, or has more than `at_most` items.
    """
    if not body:
        return []
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(body), max_array_len=0, max_map_len=0, max_ext_len=0
    )
    try:
        unpacker.feed(body)
        count = unpacker.read_array_header()
        if count > at_most:
            raise WireError(f"{count} items in a list, above {at_most}")
        items = list(islice(unpacker, count))
    except WireError:
        raise
    except Exception as error:
        raise WireError("not a list of plain values") from error
    if len(items) != count or unpacker.tell() != len(body):
        raise WireError("a list that is cut off, or goes on behind its end")
    return items


def _revealed(item: object) -> Revealed:
    if isinstance(item, bytes):
        code, _, message = item.decode("utf-8", "replace").partition(" ")
        return Unreadable(code, message[:MAX_REASON_CHARACTERS])
    if item is not None and not isinstance(item, str):
        raise WireError("the items of a reveal are texts")
    return item


def _turn_id(value: object) -> bytes | None:
    if value is not None and not (isinstance(value, bytes) and len(value) <= MAX_TURN_ID_BYTES):
        raise WireError("a turn id is a few bytes")
    return value


def _reason(value: object) -> str:
    if not isinstance(value, str):
        raise WireError("a reason is text")
    return value[:MAX_REASON_CHARACTERS]
