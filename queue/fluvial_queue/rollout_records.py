"""A staged rollout: production moves to a deployment in steps, and back at once if that fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

RolloutState = Literal["active", "completed", "aborted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """An app's rollout, or its last one; it stands in the app's record."""

    deployment: str  # the new one; the old one is production until the rollout completes
    stages: tuple[int, ...]  # percent of clients, rising
    every_ms: int | None  # how long a stage lasts; None: until somebody approves
    started_ms: int
    since_ms: int  # when this stage began, or the rollout ended
    by: str
    stage: int = 0
    state: RolloutState = "active"
    reason: str = ""  # why it was aborted

    @property
    def is_active(self) -> bool:
        return self.state == "active"

    @property
    def percent(self) -> int:
        """How many clients of a hundred are on the new deployment because of the rollout."""
        return self.stages[self.stage] if self.is_active else 0

    @property
    def due_ms(self) -> int | None:
        """When the next stage begins by itself; None: it does not."""
        if not self.is_active or self.every_ms is None:
            return None
        return self.since_ms + self.every_ms

    def ended(self, state: RolloutState, now_ms: int, reason: str = "") -> RolloutRecord:
        """Return the rollout after its end."""
        return replace(self, state=state, since_ms=now_ms, reason=reason)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "deployment": self.deployment,
            "stages": list(self.stages),
            "every_ms": self.every_ms,
            "started_ms": self.started_ms,
            "since_ms": self.since_ms,
            "by": self.by,
            "stage": self.stage,
            "state": self.state,
            "reason": self.reason,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return what `to_dict` made `value` from."""
        return cls(
            deployment=value["deployment"],
            stages=tuple(value["stages"]),
            every_ms=value["every_ms"],
            started_ms=value["started_ms"],
            since_ms=value["since_ms"],
            by=value["by"],
            stage=value["stage"],
            state=value["state"],
            reason=value["reason"],
        )
