"""The store's time, known between two answers of the store.

Every reply of the store carries its time; between replies the local monotonic clock carries it on.
The local wall clock is never asked, so a jump of it changes nothing.
"""

from __future__ import annotations

import time


class StoreClock:
    """Follows a store's clock."""

    __slots__ = ("_now_ms", "_read_at")

    def __init__(self, now_ms: int) -> None:
        self.synchronise(now_ms)

    def synchronise(self, now_ms: int) -> None:
        """Take in what the store has just said."""
        self._now_ms = now_ms
        self._read_at = time.monotonic()

    def now_ms(self) -> int:
        """Return the store's time in Unix milliseconds."""
        return self._now_ms + int((time.monotonic() - self._read_at) * 1000)


def boottime() -> float:
    """Return seconds since boot; unlike `time.monotonic` it counts while the machine sleeps, so a
    lease that ran out meanwhile is seen to have run out."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
