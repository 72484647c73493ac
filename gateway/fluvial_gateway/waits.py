"""Requests that wait (for a result, for events): bounded in number, and all ended by a stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from fluvial.errors import UnavailableError
from fluvial_gateway.problems import ProblemError

_LIMIT: Final = 512  # each holds a connection and a waiter, some kilobytes


class LongWaits:
    """Admits waits and can end them all."""

    def __init__(self, *, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._deadlines: set[asyncio.Timeout] = set()
        self._is_closed = False

    def check(self) -> None:
        """Raises:
        ProblemError, UnavailableError: no further request may wait.
        """
        if self._is_closed:
            raise UnavailableError("the gateway is stopping")
        if len(self._deadlines) >= self._limit:
            raise ProblemError("too_many_waits", f"{self._limit} requests are waiting already")

    @asynccontextmanager
    async def admitted(self, seconds: float) -> AsyncGenerator[None, None]:
        """Let the block wait for at most `seconds`, less if the gateway stops.

        Raises:
            TimeoutError: the time was up.
            ProblemError, UnavailableError: it may not wait at all.
        """
        self.check()
        async with asyncio.timeout(seconds) as deadline:
            self._deadlines.add(deadline)
            try:
                yield
            finally:
                self._deadlines.discard(deadline)

    def close(self) -> None:
        """End every wait now; admit none from now on."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            deadline.reschedule(now)
