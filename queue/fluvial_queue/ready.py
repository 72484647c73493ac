"""What is ready to be committed: evaluated turns, and what became of other invocations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fluvial.events import Event
from fluvial_queue.jobs import Job


@dataclass(slots=True, eq=False)
class ReadyTurn:
    """An evaluated turn whose outputs may be committed onto `job.base`."""

    job: Job
    events: Sequence[Event]
    encoded: Sequence[bytes]
    turn_id: bytes
    instance: str
    conflicts: Mapping[str, str] = field(default_factory=dict[str, str])  # token → its other holder


@dataclass(slots=True, eq=False)
class ReadyResult:
    """What became of a job other than a whole turn: exactly one of `end`, `lost`, `pause`."""

    message_id: str
    job: Job
    end: Event | None  # how a step's attempt ended
    carried: ReadyTurn | None = None  # the turn that the step's invocation took along
    lost: str = ""  # why an execution was cut off
    pause: str = ""  # why the run cannot go on
