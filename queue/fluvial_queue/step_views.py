"""The owner's view of one step that has no result yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fluvial.events import Event, EventType
from fluvial.invocations import StepHistory

MAX_ERROR_BYTES = 32 * 1024  # of a failed attempt that the next one may look at


@dataclass(slots=True)
class StepView:
    """A step that has no result yet."""

    input: bytes
    meta: dict[str, Any]  # of STEP_SCHEDULED: its name, and the rules by which it is executed
    scheduled_ms: int
    attempt: int = 1  # the attempt that is due or under way
    lost: int = 0  # executions that a fault cut off; they spend no attempt
    retry_timer: bytes | None = None  # while the next attempt waits for its time
    history: StepHistory | None = None  # None: it was never executed

    @property
    def name(self) -> str:
        name: str = self.meta["name"]
        return name

    @property
    def timeout_ms(self) -> int:
        """How long one attempt may take; 0: as long as it wants."""
        timeout_ms: int = self.meta["timeout_ms"]
        return timeout_ms

    @property
    def expires_ms(self) -> int:
        """When it must have ended, by the store's clock; 0: never."""
        deadline_ms: int = self.meta.get("deadline_ms", 0)
        return self.scheduled_ms + deadline_ms if deadline_ms else 0

    @property
    def heartbeat_ms(self) -> int:
        """How long its body may go without a sign of life; 0: as long as it wants."""
        heartbeat_ms: int = self.meta.get("heartbeat_ms", 0)
        return heartbeat_ms

    @property
    def is_at_most_once(self) -> bool:
        """Whether an execution that was cut off must not be repeated."""
        return bool(self.meta.get("once"))

    @property
    def is_isolated(self) -> bool:
        """Whether each execution has a process of its own."""
        return "isolated" in self.meta

    @property
    def spent(self) -> int:
        """How many attempts the one that is due or under way is the last of; forgiven ones do not
        count."""
        return self.attempt - (self.history.forgiven if self.history is not None else 0)

    def remember(self, event: Event) -> None:
        """Take in what an execution that did not end the step left behind."""
        known = self.history or StepHistory()
        known = replace(known, started_ms=known.started_ms or event.meta.get("started_ms", 0))
        if event.meta.get("progress"):
            known = replace(known, progress=event.meta["progress"])
        if event.type is EventType.STEP_RETRYING:
            error = event.payload if len(event.payload) <= MAX_ERROR_BYTES else b""
            known = replace(known, error=error)
            if event.meta.get("exhausted"):
                known = replace(known, forgiven=event.meta["attempt"])
        self.history = known

    def forget_progress(self) -> None:
        """Leave what earlier executions have reported."""
        if self.history is not None:
            self.history = replace(self.history, progress=b"")
