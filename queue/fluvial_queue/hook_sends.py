"""Sending payloads to hooks: each belongs to one opening of one hook, and is accepted once.

A token may be opened, closed and opened again. What was meant for one opening must not be taken by
the next (a second click on "approve" must not approve what is asked for then), so the message
names the opening, and the store accepts it only while that is the open one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from fluvial_queue.contract import SendOutcome
from fluvial_queue.hook_contract import HookStore, OpenHook
from fluvial_queue.messages import Message, MessageKind


class MessageSender(Protocol):
    """The part of a store that takes messages to runs."""

    async def send(
        self,
        run_id: str,
        body: bytes,
        *,
        token: str | None = None,
        hook: OpenHook | None = None,
        resume_id: str = "",
        urgent: bool = False,
    ) -> SendOutcome: ...


class HookSender(HookStore, MessageSender, Protocol):
    """The part of a store that takes payloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A sealed payload for a hook of a run."""

    run_id: str
    token: str
    resume_id: str  # with it, sending again is the same sending
    sealed: bytes
    asks: bool = False  # who sends it waits for an answer
    hook_id: int = 0  # only for the hook of this id; 0: for whichever is open under the token


async def send_payload(
    store: HookSender, payload: Payload, *, found: OpenHook | None = None
) -> SendOutcome:
    """Send a payload to whatever opening of its hook is open; `found` just now, if it was.

    CLOSED: its hook is not open now. UNKNOWN: it never was, or the run has ended or is gone.

    Raises:
        OutcomeUnknownError: send it again, unchanged.
    """
    run_id, token = payload.run_id, payload.token
    hook = found or await store.find_hook(run_id, token)
    while isinstance(hook, OpenHook) and payload.hook_id in (0, hook.id):
        outcome = await store.send(
            run_id, _body(payload, hook), token=token, hook=hook, resume_id=payload.resume_id
        )
        if outcome in (SendOutcome.ACCEPTED, SendOutcome.DUPLICATE):
            return outcome
        before, hook = hook, await store.find_hook(run_id, token)
        if hook == before:
            return outcome
    if await store.has_resumed(run_id, token, payload.resume_id):
        return SendOutcome.DUPLICATE
    return SendOutcome.CLOSED if hook is not None else SendOutcome.UNKNOWN


def _body(payload: Payload, hook: OpenHook) -> bytes:
    meta: dict[str, Any] = {"token": payload.token, "resume": payload.resume_id}
    if payload.asks:
        meta["ask"] = True
    kind, sealed = MessageKind.HOOK, payload.sealed
    return Message(kind, payload.run_id, id=hook.id, meta=meta, payload=sealed).encode()
