"""Jobs: the invocations that a sequencer asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    step_id: int = 0
    attempt: int = 0
    carry: bytes | None = None  # the live coroutine that may go on in the same invocation
    replay: bool = False  # the whole log must be sent along
    lost_limit: int = MAX_LOST
    over: bool = False  # nobody waits for its answer any more
