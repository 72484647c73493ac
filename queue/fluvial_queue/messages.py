"""Messages: the queue's entries, each asking for one thing to happen to one run.

A message's body is a msgpack array `[kind, run_id, id, attempt, meta, payload]`:

    kind     what is asked for (`MessageKind`)
    id       the step's, timer's or hook's id in the run; 0 for the run itself
    attempt  the step's attempt, counting from 1; for a turn, how often it was lost; else 0
    meta     a small map in clear
    payload  a hook's sealed payload, else empty

A due timer's member *is* the body of the message that it becomes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgpack

from fluvial.errors import WireError


class MessageKind(StrEnum):
    """What a message asks for."""

    START = "start"  # append RUN_STARTED; added by the start script
    TURN = "turn"  # advance the workflow; added by the owner's commits
    STEP = "step"  # execute one attempt; added by the owner's commits, or by a retry's timer
    TIMER = "timer"  # append TIMER_FIRED; added by a due timer
    HOOK = "hook"  # append HOOK_RECEIVED; added by `send`; id: the hook's; meta: token, resume,
    #                ask (True: somebody waits for an answer)
    CANCEL = "cancel"  # append CANCEL_REQUESTED; added by `send`; meta: reason
    TERMINATE = (
        "terminate"  # end the run at once; by `send`, or by a cancel's deadline; meta: reason
    )
    RESUME = "resume"  # continue a paused run; added by `send`; meta: by, deployment
    PAUSE = "pause"  # append RUN_PAUSED; added by `send`; meta: reason, by
    WAKE = "wake"  # let sleeps end now; added by `send`; id: the timer, 0: all; meta: by
    RETRY = "retry"  # make the attempts that wait for their time now; added by `send`; meta: by
    TAG = "tag"  # append TAGS_CHANGED; added by `send`; meta: tags, by
    CHILD = "child"  # append CHILD_COMPLETED or CHILD_FAILED; added by `send`; payload: its end
    EFFECT = "effect"  # something for another run, carried out by the owner; added by commits


@dataclass(frozen=True, slots=True)
class Message:
    """The body of a queue entry."""

    kind: MessageKind
    run_id: str
    id: int = 0
    attempt: int = 0
    meta: dict[str, Any] = field(default_factory=dict[str, Any])
    payload: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes that stand in the queue."""
        return msgpack.packb(
            (self.kind.value, self.run_id, self.id, self.attempt, self.meta, self.payload)
        )


def start_body(run_id: str) -> bytes:
    """Return the body of the message that begins a run."""
    return Message(MessageKind.START, run_id).encode()


def deadline_body(run_id: str) -> bytes:
    """Return the body of the message that cancels a run whose deadline has passed."""
    return Message(MessageKind.CANCEL, run_id, meta={"reason": "deadline"}).encode()


def decode_message(body: bytes) -> Message:
    """Return the message that `body` holds.

    Raises:
        WireError: `body` is not a message.
    """
    try:
        kind, run_id, correlation, attempt, meta, payload = msgpack.unpackb(body)
        return Message(MessageKind(kind), run_id, correlation, attempt, meta, payload)
    except Exception as error:
        raise WireError("not a queue message") from error
