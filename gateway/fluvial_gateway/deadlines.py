"""Many deadlines, one coarse timer.

A timer of the event loop per request costs more than reading the request, and nearly all of them
are cancelled. Here an item only has a number, its `deadline`, which its owner moves by assignment;
one sweep looks at all items a few times a second. Without items there is no timer at all, so an
idle gateway is not woken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol

NEVER: Final = float("inf")


class Expiring(Protocol):
    """Something that must not last for ever."""

    deadline: float  # by the clock of the `Deadlines` that watch it

    def expired(self) -> None:
        """End, or move the deadline; called at every sweep until one of the two has happened."""
        ...


class Deadlines:
    """Calls `expired` on each watched item whose deadline has passed."""

    def __init__(
        self, resolution_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.clock = clock
        self._resolution_seconds = resolution_seconds
        self._items: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def watch(self, item: Expiring) -> None:
        """Watch `item` until `unwatch`."""
        self._items.add(item)
        if self._timer is None:
            self._arm()

    def unwatch(self, item: Expiring) -> None:
        """Watch `item` no more."""
        self._items.discard(item)

    def close(self) -> None:
        """Forget all items and stop the timer."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self) -> None:
        """Look at all items now."""
        now = self.clock()
        for item in [item for item in self._items if item.deadline <= now]:
            item.expired()

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._resolution_seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._items:
            self._arm()
            self.sweep()
