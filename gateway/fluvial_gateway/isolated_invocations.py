"""Steps under way in processes of their own.

When such a process ends, that is what the step's code did, and counts as a failed attempt, unless
somebody had it ended or its invoker is gone: then it is a fault like any other.
"""

from __future__ import annotations

from typing import Final, cast

from fluvial.ends import KILLED
from fluvial_gateway.answer_invocations import AnswerInvocation
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Lost
from fluvial_gateway.isolated_pools import IsolatedPool

_CRASHES: Final = ("exit:", "signal:", KILLED)
_TIMEOUT: Final = "timeout"


class IsolatedInvocation(AnswerInvocation):
    """One INVOKE of a step that has an instance to itself."""

    def cancel(self, reason: str) -> None:
        """End it, and its process: with it goes what a cancellation cannot stop."""
        was_cancelled = self.cancelled is not None
        super().cancel(reason)
        if self._slot is not None and self.instance_used is not None and not was_cancelled:
            self._isolated_pool.end(self.instance_used)

    def _lost(self, instance: Instance, reason: str) -> None:
        def tell(fate: str | None) -> None:
            self._tell(self._loss(instance, reason, fate))

        self._isolated_pool.tell_fate(instance, tell)

    def _loss(self, instance: Instance, reason: str, fate: str | None) -> Lost:
        if self._is_silent:
            return Lost(instance.id, "heartbeat", self._progress, crashed=True)
        if self.cancelled is not None:
            is_late = self.cancelled == _TIMEOUT
            return Lost(instance.id, self.cancelled, self._progress, crashed=is_late)
        if fate is None:
            return Lost(instance.id, reason, self._progress)
        return Lost(instance.id, fate, self._progress, crashed=fate.startswith(_CRASHES))

    @property
    def _isolated_pool(self) -> IsolatedPool:
        return cast("IsolatedPool", self._pool)  # the router pairs the two
