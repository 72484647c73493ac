"""What the parts of the dispatcher need of the whole."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from fluvial_gateway.invocation_ids import InvocationIds
from fluvial_gateway.invocations import Invocations
from fluvial_gateway.observing import DispatchObserver
from fluvial_gateway.store_clock import StoreClock
from fluvial_queue.contract import Lease, Store


class Surroundings(Protocol):
    """What a partition's owner needs of its dispatcher."""

    @property
    def store(self) -> Store: ...
    @property
    def invocations(self) -> Invocations: ...
    @property
    def observer(self) -> DispatchObserver: ...
    @property
    def clock(self) -> StoreClock: ...
    @property
    def invocation_ids(self) -> InvocationIds: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task that the dispatcher owns."""
        ...

    def wake(self, run_id: str) -> None:
        """A run has moved on: wake whoever waits for it."""
        ...

    def progressed(self) -> None:
        """An invocation or a commit is over: somebody may wait for the last one."""
        ...

    def lose(self, lease: Lease) -> None:
        """A lease is gone; without effect if its partition is held anew since."""
        ...
