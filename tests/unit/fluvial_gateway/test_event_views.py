"""Events as the control API shows them."""

from __future__ import annotations

from fluvial.events import Event, EventType
from fluvial_gateway.control.views import event_view


def test_of_a_sealed_progress_only_its_size_is_shown() -> None:
    meta = {"attempt": 1, "reason": "heartbeat", "progress": bytes(1000)}

    shown = event_view(3, Event(EventType.ATTEMPT_LOST, 0, 7, meta=meta))

    assert shown["meta"] == {"attempt": 1, "reason": "heartbeat", "progress_bytes": 1000}
