"""Which invocations of one link may start: decided once for each, by one of two threads.

The event loop claims an invocation in the step that starts its code. The watchdog, in its own
thread, revokes what is not claimed when the loop is blocked, and tells the gateway up to which id
the loop had claimed: the gateway sends everything later elsewhere. What was revoked never starts
here, although its frame may be read only when the loop goes on:

* ids of a link grow, and code that starts claims its id; so everything above the highest claimed
  id has not started. (A turn runs where its frame is read, before the tasks of earlier frames:
  those then count as claimed, which is the safe side.)
* everything stays revoked until the gateway says in the link itself, behind all that it sent before
  it heard, what its last id was then (RESUME). What it sends afterwards may start again.
"""

from __future__ import annotations

import threading
from typing import Final

_EVERYTHING: Final = 1 << 62  # above every id


class Claims:
    """The claims of one link."""

    __slots__ = ("_claimed", "_lock", "_revoked", "_revoked_before", "is_open")

    def __init__(self) -> None:
        self.is_open = True  # whether what is sent now may start
        self._lock = threading.Lock()
        self._claimed = 0
        self._revoked = 0  # nothing up to here may start any more
        self._revoked_before = 0

    def claim(self, conversation: int) -> bool:
        """Start this one; false: it was revoked. For the event loop."""
        with self._lock:
            if conversation <= self._revoked:
                return False
            if conversation > self._claimed:
                self._claimed = conversation
            return True

    def revoke(self) -> int | None:
        """Let nothing more start; return the highest id that may have started.

        None: all is revoked already. For the watchdog.
        """
        with self._lock:
            if not self.is_open:
                return None
            self.is_open = False
            self._revoked_before, self._revoked = self._revoked, _EVERYTHING
            return self._claimed

    def restore(self) -> None:
        """Take `revoke` back: the gateway was not told. For the watchdog."""
        with self._lock:
            self.is_open = True
            self._revoked = self._revoked_before

    def resume(self, last: int) -> None:
        """The gateway knows what was revoked, and has sent nothing between `last` and this."""
        with self._lock:
            if not self.is_open:
                self.is_open = True
                self._revoked = last
