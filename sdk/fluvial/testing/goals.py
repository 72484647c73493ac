"""What a test waits for a run to come to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluvial.errors import InvalidRequestError
from fluvial.events import Event, EventType
from fluvial.steps import Step
from fluvial.testing.engines import Engine


class Goal:
    """Several conditions on a run; it is reached when all of them hold at once.

    An event that was in the log stays there; so only new events are looked at.
    """

    def __init__(
        self,
        *,
        hook: str | None,
        step: Step[..., Any] | None,
        event: EventType | None,
        status: str | None,
        condition: Callable[[], bool] | None,
    ) -> None:
        self._hook = hook
        self._status = status
        self._condition = condition
        self._name = self._describe(step, event)
        self._wanted: list[Callable[[Event], bool]] = []
        if step is not None:
            self._wanted.append(lambda e: _schedules(e, step))
        if event is not None:
            self._wanted.append(lambda e: e.type is event)
        self._position = 0  # in the log
        if not self._name:
            raise InvalidRequestError(
                "until needs at least one of hook=, step=, event=, status= and condition="
            )

    def __str__(self) -> str:
        return self._name

    def is_reached(self, engine: Engine, run_id: str) -> bool:
        """Whether the run is there."""
        if self._wanted:
            for event in engine.events(run_id, self._position):
                self._position += 1
                self._wanted = [wanted for wanted in self._wanted if not wanted(event)]
        return (
            not self._wanted
            and (self._hook is None or self._hook in engine.open_hooks(run_id))
            and (self._status is None or self._status == engine.status(run_id))
            and (self._condition is None or self._condition())
        )

    def _describe(self, step: Step[..., Any] | None, event: EventType | None) -> str:
        parts = {
            "an open hook": None if self._hook is None else repr(self._hook),
            "asked for step": None if step is None else step.name,
            "an event": None if event is None else event.name,
            "the status": self._status,
            "what the test's condition says": None if self._condition is None else "",
        }
        return ", ".join(
            f"{what} {value}".strip() for what, value in parts.items() if value is not None
        )


def _schedules(event: Event, step: Step[..., Any]) -> bool:
    return event.type is EventType.STEP_SCHEDULED and event.meta["name"] == step.name
