"""When an instance retires by itself: nothing in flight for `idle_seconds`.

Busy and idle alternate with every request at low load, so neither costs a timer: one timer runs at
most, and when it fires it looks at when the instance last became idle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timers(Protocol):
    """The part of an event loop that tells the time and calls back (tests bring their own)."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[[], None], /) -> object: ...


class IdleWatch:
    """Calls `on_idle` once, after `idle_seconds` without interruption between idle and busy."""

    def __init__(self, timers: Timers, idle_seconds: float, on_idle: Callable[[], None]) -> None:
        self._timers = timers
        self._idle_seconds = idle_seconds
        self._on_idle = on_idle
        self._idle_since: float | None = None
        self._armed = False
        self._over = False
        self._keepers = 0  # gateways that want the instance to stay

    def busy(self) -> None:
        """Something is in flight."""
        self._idle_since = None

    def idle(self) -> None:
        """Nothing is in flight from now on (also: start counting again)."""
        self._idle_since = self._timers.time()
        if not self._armed:
            self._arm(self._idle_seconds)

    def keep(self, *, wanted: bool) -> None:
        """One more wants the instance to stay, or one fewer; then count idleness from now on."""
        self._keepers += 1 if wanted else -1
        if not self._keepers and self._idle_since is not None:
            self.idle()

    def stop(self) -> None:
        """Never call `on_idle` from now on."""
        self._over = True

    def _arm(self, seconds: float) -> None:
        self._armed = True
        self._timers.call_later(seconds, self._fired)

    def _fired(self) -> None:
        self._armed = False
        if self._over or self._keepers or self._idle_since is None:
            return
        left = self._idle_since + self._idle_seconds - self._timers.time()
        if left > 0:
            self._arm(left)
            return
        self._over = True
        self._on_idle()
