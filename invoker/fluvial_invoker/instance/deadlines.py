"""Deadlines of invocations, with one timer for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What `call_at` returns."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """The part of an event loop that tells the time and calls back (tests bring their own)."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None], /) -> Timer: ...


class Expiring(Protocol):
    """Something with a deadline, in the clock of `Timers`."""

    @property
    def deadline(self) -> float: ...

    def expire(self) -> None: ...


class Deadlines:
    """Calls `expire` on what is still watched when its deadline has passed.

    Most invocations end long before: adding and removing is a dictionary entry and, for the
    earliest one, a timer.
    """

    def __init__(self, timers: Timers) -> None:
        self._timers = timers
        self._watched: dict[Expiring, None] = {}
        self._timer: Timer | None = None
        self._due = 0.0

    def add(self, item: Expiring) -> None:
        self._watched[item] = None
        deadline = item.deadline
        if self._timer is None or deadline < self._due:
            self._arm(deadline)

    def remove(self, item: Expiring) -> None:
        self._watched.pop(item, None)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._timers.call_at(due, self._fired)

    def _fired(self) -> None:
        self._timer = None
        now = self._timers.time()
        for item in [item for item in self._watched if item.deadline <= now]:
            del self._watched[item]
            item.expire()
        if self._watched:
            self._arm(min(item.deadline for item in self._watched))
