"""What every invocation does on its way: wait, be placed, be sent back, be cancelled, end.

    waiting ──place──► placed ──finished/answered──► ended
       ▲  │              │ │
       │  └─refuse──►    │ └──lost──► ended (or orphaned, if its instance never was ready)
       └────nacked───────┘

The deadline of a waiting invocation ends its wait; that of a placed one cancels it, and if it does
not end within a grace after that, its instance is given up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final

from fluvial.errors import WireError
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.deadlines import Deadlines
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.link_slots import AnswerSlot, HttpSlot
from fluvial_gateway.pool_contract import PoolLimits
from fluvial_gateway.pools import InstancePool

RECHECK_SECONDS: Final = (
    1.0  # how often a stuck invocation looks whether its instance may be killed
)


@dataclass(frozen=True, slots=True)
class InvocationContext:
    """What all invocations of a router share."""

    deadlines: Deadlines
    limits: PoolLimits


class PooledInvocation(ABC):
    """The common part of HTTP invocations and of turns, steps and reveals."""

    # Defaults of the class: one of these is made per request, and most never change them.
    deadline: float
    prefer: str | None = None
    reroutes = 0
    ended = False
    cancelled: str | None = None
    instance_used: Instance | None = None
    _slot: HttpSlot | AnswerSlot | None = None
    _overdue_since: float | None = None
    _is_stuck = False

    def __init__(self, pool: InstancePool, context: InvocationContext, deadline: float) -> None:
        self.deadline = deadline
        self._pool = pool
        self._context = context

    # What an invocation of each kind does in its own way

    @abstractmethod
    def _send(self, instance: Instance, spec: DeploymentSpec) -> HttpSlot | AnswerSlot:
        """Send the opening frame."""

    @abstractmethod
    def _refused(self, reason: Unavailable) -> None:
        """Tell whoever asked that it was never started."""

    @abstractmethod
    def _lost(self, instance: Instance, reason: str) -> None:
        """Tell whoever asked that it may have been started and is gone."""

    def _timed_out(self) -> None:  # noqa: B027 not every kind has something to do
        """It has run for too long and was just cancelled."""

    def _placed(self) -> None:  # noqa: B027 not every kind has something to do
        """It was sent."""

    def _sent_back(self) -> None:  # noqa: B027 not every kind has something to do
        """It was not started and goes elsewhere: prepare to send it again."""

    def _may_run_twice(self, reason: str) -> bool:
        """Whether it may be sent elsewhere although its handler may have been started."""
        return False

    # For whoever asked

    def start(self) -> None:
        """Look for an instance."""
        self._context.deadlines.watch(self)
        self._pool.submit(self)

    def cancel(self, reason: str) -> None:
        """End it: at once if it waits, else by asking the instance."""
        if self.ended or self.cancelled is not None:
            return
        self.cancelled = reason
        if self._slot is not None:
            self._slot.cancel(reason)
        else:
            self._pool.withdraw(self)
            self.refuse(Unavailable("cancelled", reason, False))

    # For the pool

    def place(self, instance: Instance, spec: DeploymentSpec) -> None:
        self.instance_used = instance
        try:
            self._slot = self._send(instance, spec)
        except WireError as error:
            self._pool.release(instance)
            self.refuse(Unavailable("too_large", str(error), False))
            return
        self._placed()

    def refuse(self, reason: Unavailable) -> None:
        self._end()
        self._refused(reason)

    # For the link

    def nacked(self, reason: str) -> None:
        instance = self._leave()
        if self.cancelled is not None:
            self._pool.release(instance)
            self.refuse(Unavailable("cancelled", self.cancelled, False))
        else:
            self._sent_back()
            self._pool.nacked(self, instance, reason)

    def lost(self, reason: str) -> None:
        instance = self._leave()
        if instance.welcomed_at is None and self.cancelled is None:
            self._sent_back()
            self._pool.orphaned(self, instance)
        elif self.cancelled is None and self._may_run_twice(reason):
            self.reroutes += 1
            self._pool.release(instance)
            self._sent_back()
            self._pool.submit(self, first=True)
        else:
            self._pool.release(instance)
            self._end()
            self._lost(instance, reason)

    # For the deadlines

    def expired(self) -> None:
        now = self._context.deadlines.clock()
        if self._slot is None:
            self._pool.withdraw(self)
            message = "no instance had room before the deadline"
            self.refuse(Unavailable("queue_timeout", message, True, retry_after_seconds=1.0))
        elif self._overdue_since is None:
            self._overdue_since = now
            if self.instance_used is not None:
                self.instance_used.overdue += 1
            self.deadline = now + self._context.limits.cancel_grace_seconds
            self.cancel("timeout")
            self._timed_out()
        elif self.instance_used is not None:
            if not self._is_stuck:
                self._is_stuck = True
                self.instance_used.stuck += 1
            self.deadline = now + RECHECK_SECONDS
            self._pool.does_not_yield(self.instance_used, self._overdue_since)

    def _finish(self) -> Instance:
        """The instance ended it: leave its place to the next one."""
        instance = self._leave()
        self._end()
        self._pool.release(instance)
        return instance

    def _leave(self) -> Instance:
        instance = self.instance_used
        if instance is None:
            raise RuntimeError("an invocation that was not placed has left its instance")
        self._slot = None
        if self._overdue_since is not None:
            instance.overdue -= 1
        if self._is_stuck:
            self._is_stuck = False
            instance.stuck -= 1
        return instance

    def _end(self) -> None:
        self.ended = True
        self._context.deadlines.unwatch(self)
