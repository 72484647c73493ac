"""Who follows an app's log here, and how they hear that it has grown.

The invoker sends a notice for the apps that somebody follows, and only for those. It is a hint:
whoever waits looks by itself besides, every so often, and when the connection to the invoker is
made anew, since notices may have been missed meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, Protocol

from fluvial_gateway.problems import ProblemError

MAX_FOLLOWERS: Final = 64  # each may read as fast as its client takes it


class LogNotifier(Protocol):
    """Tells which logs have grown."""

    def watch_logs(self, apps: list[str], /) -> None:
        """Send notices for these apps, in place of those watched before."""
        ...


class LogWatch:
    """One follower's bell."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def reset(self) -> None:
        """Forget what was heard; call it before reading."""
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        """Return when the log has grown since the reset, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return

    def ring(self) -> None:
        self._rung.set()


class LogWatches:
    """All followers of this gateway, bounded in number."""

    def __init__(self, notifier: LogNotifier, *, limit: int = MAX_FOLLOWERS) -> None:
        self._notifier = notifier
        self._limit = limit
        self._by_app: dict[str, set[LogWatch]] = {}
        self._count = 0

    def check(self) -> None:
        """Raises:
        ProblemError: there are too many followers already.
        """
        if self._count >= self._limit:
            raise ProblemError("too_many_waits", f"{self._limit} clients follow logs already")

    @contextmanager
    def watching(self, app: str) -> Generator[LogWatch, None, None]:
        """Watch an app's log for as long as the block lasts.

        Raises:
            ProblemError: there are too many followers already.
        """
        self.check()
        watch = LogWatch()
        watches = self._by_app.setdefault(app, set())
        watches.add(watch)
        self._count += 1
        if len(watches) == 1:
            self._notifier.watch_logs(list(self._by_app))
        try:
            yield watch
        finally:
            self._count -= 1
            watches.discard(watch)
            if not watches:
                del self._by_app[app]
                self._notifier.watch_logs(list(self._by_app))

    def logged(self, app: str) -> None:
        """An app's log has grown."""
        for watch in self._by_app.get(app, ()):
            watch.ring()
