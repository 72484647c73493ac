"""The attempt of a step that is running here; found by a context variable, also in its thread."""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from fluvial.context import Metadata
    from fluvial.invocations import StepRequest
    from fluvial.pulses import Pulse


class AttemptServices(Protocol):
    """What executes attempts, as their bodies may use it."""

    def previous_error(self, request: StepRequest, /) -> BaseException | None:
        """Return what the attempt before failed with."""
        ...

    def previous_progress(self, request: StepRequest, /) -> Any:
        """Return what the execution before has reported last."""
        ...

    def open_pulse(self, scope: AttemptScope, /) -> Pulse:
        """Return the attempt's heartbeats."""
        ...


class AttemptScope:
    """What the body of one attempt may know and do. Made for each, so it does nothing unasked."""

    __slots__ = ("_count", "loop", "metadata", "pulse", "request", "services")

    def __init__(
        self, request: StepRequest, services: AttemptServices, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.request = request
        self.services = services
        self.loop = loop
        self.metadata: Metadata | None = None  # once the body has asked for it
        self.pulse: Pulse | None = None  # once it is watched, or has beaten
        self._count: itertools.count[int] | None = None

    def next_key(self) -> str:
        """Return a key that the same call of this method gets in every attempt of the step."""
        if self._count is None:
            self._count = itertools.count(1)
        request = self.request
        return f"{request.run_id}-{request.id}-{next(self._count)}"

    def open_pulse(self) -> Pulse:
        """Return the heartbeats of this attempt."""
        if self.pulse is None:
            self.pulse = self.services.open_pulse(self)
        return self.pulse


current_attempt: ContextVar[AttemptScope | None] = ContextVar("fluvial_attempt", default=None)
