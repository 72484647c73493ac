"""What the two sides of a rollout answer, and when the new one is worse.

**The rule.** Looked at are the answers of the last one to two minutes that this gateway has given
to clients of the rollout. An error is an answer with a 5xx status, or none at all (the function
took too long, its instance died or could not be started). The new deployment fails with at least
`MIN_ERRORS` errors where

* it has given at least `MIN_ANSWERS` answers, and its share of errors is above twice the old one's
  and more than `MARGIN` above it; or
* all its answers were errors, and fewer than half of the old one's.

So an outage that both sides feel aborts nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MIN_ANSWERS: Final = 20
MIN_ERRORS: Final = 5
MARGIN: Final = 0.05
WINDOW_SECONDS: Final = 60.0  # two of them are looked at: the one under way, and the one before

Failing = Callable[[str], None]
"""Hears why the new side fails, once."""


@dataclass(slots=True)
class _Tally:
    answers: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class SideView:
    """What one side has answered in the time that is looked at."""

    answers: int
    errors: int

    @property
    def share(self) -> float:
        """Of errors among its answers."""
        return self.errors / self.answers if self.answers else 0.0


class Side:
    """The answers of one of the two deployments."""

    def __init__(self, counts: RolloutCounts) -> None:
        self._counts = counts
        self._now, self._before = _Tally(), _Tally()

    def answered(self, status: int) -> None:
        """A client was given an answer; 0: it will never get a complete one."""
        self._counts.turn()
        self._now.answers += 1
        if status == 0 or status >= 500:
            self._now.errors += 1
            self._counts.check()

    def turn(self, windows: int) -> None:
        """So many windows are over."""
        self._before = self._now if windows == 1 else _Tally()
        self._now = _Tally()

    def view(self) -> SideView:
        """Return what is looked at."""
        return SideView(
            self._now.answers + self._before.answers, self._now.errors + self._before.errors
        )


class RolloutCounts:
    """Both sides of one rollout, in this gateway."""

    def __init__(self, clock: Callable[[], float], failing: Failing) -> None:
        self._clock = clock
        self._failing: Failing | None = failing
        self._until = clock() + WINDOW_SECONDS
        self.old, self.new = Side(self), Side(self)

    def turn(self) -> None:
        """Begin a new window if it is time."""
        now = self._clock()
        if now >= self._until:
            windows = 1 + int((now - self._until) // WINDOW_SECONDS)
            self._until += windows * WINDOW_SECONDS
            self.old.turn(windows)
            self.new.turn(windows)

    def check(self) -> None:
        """Tell once if the new side fails."""
        reason = verdict(self.old.view(), self.new.view())
        if reason and self._failing is not None:
            failing, self._failing = self._failing, None
            failing(reason)


def verdict(old: SideView, new: SideView) -> str:
    """Return why the new side fails; "": it does not."""
    is_worse = new.share > 2 * old.share and new.share > old.share + MARGIN
    is_broken = new.errors == new.answers and 2 * old.errors < max(1, old.answers)
    if new.errors < MIN_ERRORS or not (is_broken or (is_worse and new.answers >= MIN_ANSWERS)):
        return ""
    return (
        f"{new.errors} of {new.answers} answers of the new deployment were errors, and "
        f"{old.errors} of {old.answers} of the old one's"
    )
