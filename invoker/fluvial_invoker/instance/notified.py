"""HTTP invocations that go on when their client leaves (`on_disconnect = "notify"`)."""

from __future__ import annotations

import asyncio

from fluvial_invoker.instance.asgi import HttpInvocation
from fluvial_invoker.instance.credit import ClientGoneError
from fluvial_invoker.instance.invocations import (
    CANCELLED_BY_DRAIN,
    CANCELLED_BY_TIMEOUT,
    OUTCOME_CANCELLED,
)
from fluvial_invoker.instance.output import report_exception


class NotifiedInvocation(HttpInvocation):
    """The app is told and not cancelled, as under a plain server: it may finish what it began.

    `receive` says `http.disconnect`, `send` raises an OSError, and `fluvial.context().is_cancelled`
    is true.
    """

    __slots__ = ()

    def cancel(self, reason: str = "") -> None:
        if reason in (CANCELLED_BY_DRAIN, CANCELLED_BY_TIMEOUT):
            super().cancel(reason)
        else:
            self._client_left = True
            self.stopped = self.stopped or OUTCOME_CANCELLED
            self.disconnect()

    def _settle(self, error: BaseException | None) -> str:
        if self._client_left and not isinstance(
            error, ClientGoneError | asyncio.CancelledError | None
        ):
            report_exception(error, self, f"{self._method} failed after its client had left")
        return super()._settle(error)
