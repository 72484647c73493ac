"""The attempt of a step that is running here; found by a context variable, also in its thread."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fluvial.context import Metadata
    from fluvial.invocations import StepRequest


class AttemptScope:
    """What the body of one attempt may know and do. Made for each, so it does nothing unasked."""

    __slots__ = ("_count", "metadata", "request", "unseal_error")

    def __init__(
        self, request: StepRequest, unseal_error: Callable[[], BaseException | None]
    ) -> None:
        self.request = request
        self.unseal_error = unseal_error  # of the attempt before
        self.metadata: Metadata | None = None  # once the body has asked for it
        self._count: itertools.count[int] | None = None

    def next_key(self) -> str:
        """Return a key that the same call of this method gets in every attempt of the step."""
        if self._count is None:
            self._count = itertools.count(1)
        request = self.request
        return f"{request.run_id}-{request.id}-{next(self._count)}"


current_attempt: ContextVar[AttemptScope | None] = ContextVar("fluvial_attempt", default=None)
