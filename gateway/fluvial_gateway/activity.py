"""What a dispatcher knows about a run that its log does not say: which invocations of it are asked
for or under way, where, since when, and what keeps the others from starting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["executing", "reading", "instance", "place", "refused", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """One invocation of a run, from the wish for it until it is over.

    executing   it is with an instance
    reading     its run's log is being read for a replay
    instance    it waits for an instance with room
    place       as many of its deployment's invocations as may be are under way
    refused     it could not be started, and is tried again soon
    held        the gateway starts nothing now: its lease is in doubt, or it is stopping
    """

    kind: Literal["turn", "step"]
    state: State
    deployment: str
    step_id: int = 0
    attempt: int = 0
    instance: str = ""
    since_ms: int = 0  # of `executing` and `instance`; 0: not known
    problem: str = ""  # why it was refused last
    refusals: int = 0
    is_isolated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How a deployment's instances stand."""

    instances: int
    most: int  # 0: not known yet
    in_flight: int
    waiting: int
    starting: int
    problem: str = ""  # why none could be started last
