"""A wait that ends at a time, or before it when somebody wakes it."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Alarm(Protocol):
    """What the scheduler waits by."""

    def wake(self) -> None:
        """End the wait under way, or else the next one at once."""
        ...

    async def wait(self, seconds: float | None) -> None:
        """Return when woken, or after so many seconds (None: only when woken)."""
        ...


class LoopAlarm:
    """An alarm by the event loop's clock."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            pass
        self._woken.clear()
