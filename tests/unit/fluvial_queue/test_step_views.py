"""What the owner of a run remembers of a step between its attempts."""

from __future__ import annotations

from fluvial.events import Event, EventType
from fluvial_queue.step_views import StepView


def test_attempts_before_a_pause_are_forgiven() -> None:
    step = StepView(b"", {"name": "charge", "timeout_ms": 0}, 0, attempt=4)
    assert step.spent == 4

    meta = {"attempt": 3, "delay_ms": 0, "exhausted": True}
    step.remember(Event(EventType.STEP_RETRYING, 0, 1, b"error", meta))

    assert step.spent == 1
