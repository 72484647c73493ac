"""Resealing: what a forked run takes over from its origin, sealed for the fork.

A sealed value is bound to its run, so the log of one run cannot simply be copied into another's. An
instance of the app opens it there and seals it here; nobody else can. What was sealed for a third
run (a child's input and its end) stays as it is. The owner's records are left behind: what happened
to attempts and pauses is the origin's story.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fluvial.events import INPUTS, OUTPUTS, Event, EventType, decode_event
from fluvial.hook_tokens import token_in_fork
from fluvial.invocations import Answer, pack_events, unpack_events
from fluvial.payloads import PayloadReader, SealedPlace
from fluvial.sealing import read_head

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys

RESEAL: Final = "reseal"  # the kind of invocation
_TAKEN: Final = INPUTS | OUTPUTS
_OF_HOOKS: Final = frozenset(
    {
        EventType.HOOK_OPENED,
        EventType.HOOK_RECEIVED,
        EventType.HOOK_CONFLICT,
        EventType.HOOK_ANSWERED,
        EventType.HOOK_CLOSED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResealRequest:
    """Seal events of `run_id` for `target`; the answer's events are those, in order."""

    run_id: str
    target: str
    app: str
    workflow: str
    events: Sequence[bytes]

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {
            "run": self.run_id,
            "target": self.target,
            "app": self.app,
            "workflow": self.workflow,
        }
        return RESEAL, meta, pack_events(self.events)

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> ResealRequest:
        return cls(
            run_id=meta["run"],
            target=meta["target"],
            app=meta["app"],
            workflow=meta["workflow"],
            events=unpack_events(body),
        )


def is_taken(event: Event) -> bool:
    """Whether a fork takes an event of its origin over."""
    return event.type in _TAKEN


def reseal(request: ResealRequest, keys: AppKeys) -> Answer:
    """Return the answer to a request.

    Raises:
        DecryptionError: a value was altered, or its key is gone.
    """
    reader, target = PayloadReader(keys.for_run(request.run_id)), keys.for_run(request.target)
    resealed: list[bytes] = []
    for event in map(decode_event, request.events):
        place = reader.place_of(event)
        sealed = replace(event, meta=_meta_in_fork(event, request.target))
        if place is not None and place.run_id is None:
            plaintext, correlation = reader.open(event) or b"", _in_fork(place, request.target)
            payload = target.seal(plaintext, place.kind, correlation, place.index)
            sealed = replace(sealed, payload=payload)
        if event.type is EventType.RUN_STARTED:
            sealed = replace(sealed, meta={**sealed.meta, "seed": _seed(request.run_id, event)})
        resealed.append(sealed.encode())
    return Answer(outcome="ok", events=resealed)


def _meta_in_fork(event: Event, target: str) -> dict[str, Any]:
    token = event.meta.get("token") if event.type in _OF_HOOKS else None
    return event.meta if token is None else {**event.meta, "token": token_in_fork(token, target)}


def _in_fork(place: SealedPlace, target: str) -> int | str:
    if place.kind == "hook":
        return token_in_fork(str(place.correlation), target)
    return place.correlation


def _seed(run_id: str, started: Event) -> dict[str, str]:
    """Return what the fork's chance is made of: it must be its origin's, as far as that went."""
    seed = started.meta.get("seed")
    if seed is not None:  # a fork of a fork
        return {"run": str(seed["run"]), "key": str(seed["key"])}
    _, key_id, _ = read_head(started.payload)
    return {"run": run_id, "key": key_id}
