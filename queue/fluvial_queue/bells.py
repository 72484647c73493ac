"""The bells that one listener has not heard yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from fluvial_queue.contract import Bell

MAX_BELLS: Final = 10_000
LOST: Final = Bell("lost")


class BellQueue:
    """A bounded queue; if the listener is too slow, its bells become one `lost`, which asks it to
    look everywhere."""

    def __init__(self) -> None:
        self._bells: deque[Bell] = deque()
        self._woken = asyncio.Event()
        self.is_closed = False

    def ring(self, bell: Bell) -> None:
        """Add a bell."""
        if len(self._bells) >= MAX_BELLS:
            self._bells.clear()
            bell = LOST
        self._bells.append(bell)
        self._woken.set()

    def close(self) -> None:
        """End the listening."""
        self.is_closed = True
        self._woken.set()

    def wake(self) -> None:
        """Have the listener look around."""
        self._woken.set()

    def take(self) -> Bell | None:
        """Return the oldest bell, if there is one."""
        return self._bells.popleft() if self._bells else None

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until something happens, at most for `seconds`; not at all if something has."""
        if self.is_closed or self._bells:
            return
        self._woken.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
