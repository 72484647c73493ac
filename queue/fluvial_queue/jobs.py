"""Jobs: the invocations that a sequencer asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fluvial_queue.messages import Message
from fluvial_queue.views import RunView

MAX_LOST = 5  # executions cut off by faults before a run is paused as poisonous


@dataclass(slots=True, eq=False)
class Job:
    """One invocation, from its dispatch until its answer is committed or not wanted any more."""

    kind: Literal["turn", "step"]
    message_id: str
    view: RunView
    base: int  # the log's length, as it was at dispatch
    inputs: int  # the inputs that a turn will have consumed
    deployment: str  # the run's, as it was at dispatch: a resume may move the run meanwhile
    step_id: int = 0
    attempt: int = 0
    carry: bytes | None = None  # the live coroutine that may go on in the same invocation
    replay: bool = False  # the whole log must be sent along
    has_crashed: bool = False  # it was lost by what its own code did
    progress: bytes = b""  # what a step that was lost had reported last, sealed
    started_ms: int = 0  # when it was sent to an instance; 0: it was not, as far as is known
    lost_limit: int = MAX_LOST
    over: bool = False  # nobody waits for its answer any more


def step_job(view: RunView, message_id: str, message: Message) -> Job:
    """Return the job that executes the attempt that a message asks for."""
    carry = view.turn_id if view.is_only_outstanding(message.id) else None
    return Job(
        "step",
        message_id,
        view,
        view.length,
        view.inputs,
        view.deployment,
        step_id=message.id,
        attempt=message.attempt,
        carry=carry,
    )


def turn_job(view: RunView, message_id: str) -> Job:
    """Return the job that feeds a run's unconsumed inputs to its workflow."""
    is_live = view.turn_id is not None and view.live_on is not None
    replay = view.consumed > 0 and not is_live
    at = view.length, view.inputs, view.deployment
    return Job("turn", message_id, view, *at, replay=replay)
