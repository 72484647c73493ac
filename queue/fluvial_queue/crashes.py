"""Crashes: the process of an isolated step has ended, so no instance is left to judge the attempt.

The owner does it, by the rules in STEP_SCHEDULED. They come from an instance and were checked.
"""

from __future__ import annotations

from typing import Any, Final

from fluvial.events import Event, EventType
from fluvial_queue.jobs import Job
from fluvial_queue.step_views import StepView

MAX_DELAY_MS: Final = 300_000  # as the longest wait of a step that does not say
_MAX_DOUBLINGS: Final = 20
_OF_THEIR_OWN: Final = frozenset({"timeout", "heartbeat"})  # it was ended for that


def crash_end(job: Job, step: StepView, how: str, now_ms: int) -> Event:
    """Return how an attempt ends whose process has ended: STEP_RETRYING or STEP_FAILED."""
    rules = step.meta["isolated"]
    meta: dict[str, Any] = {
        "attempt": step.attempt,
        "reason": how if how in _OF_THEIR_OWN else "crashed",
        "cause": how,
    }
    is_spent = step.spent > rules["retries"]
    if is_spent and not rules["pauses"]:
        return Event(EventType.STEP_FAILED, now_ms, job.step_id, meta=meta)
    meta["delay_ms"] = 0 if is_spent else _delay_ms(rules["first_ms"], step.spent)
    meta["started_ms"] = job.started_ms
    if is_spent:
        meta["exhausted"] = True
    if job.progress:
        meta["progress"] = job.progress
    return Event(EventType.STEP_RETRYING, now_ms, job.step_id, meta=meta)


def _delay_ms(first_ms: int, spent: int) -> int:
    """The step's first wait, doubled each time."""
    doubled: int = first_ms * 2 ** min(spent - 1, _MAX_DOUBLINGS)
    return min(doubled, max(first_ms, MAX_DELAY_MS))
