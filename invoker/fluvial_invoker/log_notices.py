"""Who wants to hear that an app's log has grown: gateways with somebody who follows it.

A notice is a hint without content: the gateway then reads the files. At most one per app is sent
every `NOTICE_SECONDS`, however much is written, and none when nobody watches the app.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

NOTICE_SECONDS: Final = 0.05


class LogNotices:
    """Gathers what was written into few notices."""

    def __init__(self, is_watched: Callable[[str], bool], tell: Callable[[str], None]) -> None:
        self._is_watched = is_watched
        self._tell = tell
        self._due: dict[str, asyncio.TimerHandle] = {}

    def written(self, app: str) -> None:
        """Something was added to an app's log."""
        if self._is_watched(app) and app not in self._due:
            loop = asyncio.get_running_loop()
            self._due[app] = loop.call_later(NOTICE_SECONDS, self._send, app)

    def close(self) -> None:
        """Send nothing any more."""
        for timer in self._due.values():
            timer.cancel()
        self._due.clear()

    def _send(self, app: str) -> None:
        del self._due[app]
        self._tell(app)
