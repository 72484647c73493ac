"""What is known of a cron (record kind `cron`): how far its ticks were dealt with, and how.

A record is changed by compare-and-set alone, so of two schedulers that decide about the same tick
one decides. A tick is claimed (`starting`) before its run is started, and settled afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Self

CronOutcome = Literal["started", "skipped", "missed", "refused", "triggered"]
"""What became of a tick: a run; none, since the last one still went on; none, since nobody was
there and the policy does not ask for it; none, since the platform refused the start. `triggered`
is a run outside the schedule."""

RECENT: Final = 10  # outcomes that are kept
MAX_REASON_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class CronEvent:
    """What became of one tick, or of several in a row that had the same end."""

    tick_ms: int  # the last of them
    outcome: CronOutcome
    at_ms: int  # when that was decided
    run_id: str = ""
    reason: str = ""
    count: int = 1

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.tick_ms, self.outcome, self.at_ms, self.run_id, self.reason, self.count]

    @classmethod
    def from_list(cls, plain: list[Any]) -> Self:
        """Return the event that `to_list` made `plain` from."""
        tick_ms, outcome, at_ms, run_id, reason, count = plain
        return cls(
            tick_ms=tick_ms,
            outcome=outcome,
            at_ms=at_ms,
            run_id=run_id,
            reason=reason,
            count=count,
        )


@dataclass(frozen=True, slots=True)
class StartingTick:
    """A tick whose run is being started, or was when somebody crashed."""

    tick_ms: int
    run_id: str
    claimed_ms: int

    def to_list(self) -> list[Any]:
        """Return plain values."""
        return [self.tick_ms, self.run_id, self.claimed_ms]


@dataclass(frozen=True, slots=True, kw_only=True)
class CronRecord:
    """Kind `cron`; the id is `cron_id(app, name)`."""

    considered_ms: int = 0  # every tick up to here is dealt with
    is_paused: bool = False
    starting: StartingTick | None = None
    last_run: str = ""  # the last run that was started, also by a trigger
    recent: tuple[CronEvent, ...] = ()  # newest first
    counts: Mapping[str, int] = field(default_factory=dict[str, int])  # by outcome

    def after(self, event: CronEvent) -> CronRecord:
        """Return the record once `event` has happened."""
        reason = event.reason[:MAX_REASON_CHARACTERS]
        noted = replace(event, reason=reason)
        counts = {**self.counts, event.outcome: self.counts.get(event.outcome, 0) + event.count}
        return replace(
            self,
            last_run=event.run_id or self.last_run,
            recent=(noted, *self.recent)[:RECENT],
            counts=counts,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the record's value."""
        starting = self.starting
        return {
            "considered_ms": self.considered_ms,
            "paused": self.is_paused,
            "starting": None if starting is None else starting.to_list(),
            "last_run": self.last_run,
            "recent": [event.to_list() for event in self.recent],
            "counts": dict(self.counts),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` made `value` from."""
        starting = value["starting"]
        return cls(
            considered_ms=value["considered_ms"],
            is_paused=value["paused"],
            starting=None if starting is None else StartingTick(*starting),
            last_run=value["last_run"],
            recent=tuple(CronEvent.from_list(event) for event in value["recent"]),
            counts=dict(value["counts"]),
        )


def cron_id(app: str, name: str) -> str:
    """Return the id of a cron's record."""
    return f"{app}/{name}"
