"""The ledger: what invocations have used since this gateway started, by the hour.

Adding is a few sums in memory, done for every invocation. `UsageKeeping` writes the hours to the
store and then lets those that are over go.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from fluvial_gateway.occupancy import Occupied
from fluvial_gateway.usage_amounts import HOUR_MS, Function, Used

_REFUSED = "refused"  # never started: nothing is used and nothing is billed


def wall_ms() -> int:
    """Return the time in Unix milliseconds."""
    return int(time.time() * 1000)


class UsageLedger:
    """Adds up what is used; every call is cheap and synchronous."""

    def __init__(self, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self.on_used: Callable[[], None] = _nobody  # something is to be written
        self._now_ms = now_ms
        self._hours: dict[int, Used] = {}
        self._changed: set[int] = set()
        self._occupied: dict[str, float] = {}  # byte seconds that were counted, by app

    def add(self, function: Function, outcome: str, seconds: float, cpu_us: int) -> None:
        """An invocation has ended."""
        if outcome == _REFUSED:
            return
        amount = self._current().of(function)
        amount.invocations += 1
        # What an instance reports may be anything; a total never goes back.
        if cpu_us > 0:
            amount.cpu_us += cpu_us
        amount.busy_ms += int(seconds * 1000 + 0.5)

    def occupy(self, occupied: Mapping[str, Occupied]) -> bool:
        """Count the memory that was provisioned since the last time; return whether something is
        in flight, so that there will be more."""
        for app, found in occupied.items():
            gained = found.byte_seconds - self._occupied.get(app, 0.0)
            if gained > 0:
                memory = self._current().memory_of(app)
                memory.byte_seconds += gained
                memory.memory_bytes = max(memory.memory_bytes, found.memory_bytes)
                busy_ms = round(gained / found.memory_bytes * 1000) if found.memory_bytes else 0
                memory.first_ms = memory.first_ms or self._now_ms() - busy_ms
            self._occupied[app] = found.byte_seconds
        return any(found.in_flight for found in occupied.values())

    def take_changed(self) -> dict[int, Used]:
        """Return the hours that something was added to, with all that was used in them."""
        changed, self._changed = self._changed, set()
        return {hour: self._hours[hour] for hour in sorted(changed)}

    def keep(self, hour: int) -> None:
        """An hour could not be written: it is to be written again."""
        self._changed.add(hour)

    def forget_before(self, hour: int) -> None:
        """Let hours go that are over and written."""
        for past in [past for past in self._hours if past < hour and past not in self._changed]:
            del self._hours[past]

    @property
    def hour(self) -> int:
        """The hour that is being added to, counted from 1970."""
        return self._now_ms() // HOUR_MS

    def _current(self) -> Used:
        hour = self._now_ms() // HOUR_MS
        if hour not in self._changed:  # once after each time that it was written
            self._changed.add(hour)
            self.on_used()
        used = self._hours.get(hour)
        if used is None:
            used = self._hours[hour] = Used()
        return used


def _nobody() -> None:
    """Nobody writes it down."""
