"""HTTP invocations whose code runs in a thread: WSGI apps and sync handlers."""

from __future__ import annotations

from typing import Final

from fluvial_invoker.instance.asgi import HttpInvocation
from fluvial_invoker.instance.invocations import (
    CANCELLED_BY_DRAIN,
    CANCELLED_BY_TIMEOUT,
    OUTCOME_CANCELLED,
    OUTCOME_TIMEOUT,
)

# How long a thread may go on after its deadline, before its instance is replaced.
THREAD_GRACE_SECONDS: Final = 5.0


class ThreadedInvocation(HttpInvocation):
    """An HTTP invocation whose code nothing can stop.

    Told to stop, it says at once that it is finished, reads and writes nothing any more, and holds
    its place here until the thread has ended by itself; `fluvial.context().is_cancelled` tells it.
    """

    __slots__ = ()

    def cancel(self, reason: str = "") -> None:
        if reason == CANCELLED_BY_TIMEOUT:
            self.expire()
        elif reason == CANCELLED_BY_DRAIN:
            self.stop(OUTCOME_CANCELLED)
        else:
            self._client_left = True
            self._stop_app(OUTCOME_CANCELLED)

    def _stop_app(self, outcome: str) -> None:
        if self.stopped is None:
            self.stopped = outcome
            self.disconnect()
            super().answer(None)
        if outcome == OUTCOME_TIMEOUT:
            self._loop.call_later(THREAD_GRACE_SECONDS, self._check_end)

    def _check_end(self) -> None:
        if self.task is not None:
            self.link.goes_on(self)

    def answer(self, error: BaseException | None) -> None:
        if self.stopped is None:
            super().answer(error)
