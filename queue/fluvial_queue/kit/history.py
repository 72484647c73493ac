"""What has happened in a schedule, for people."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from fluvial.events import Event, EventType, decode_event
from fluvial_queue.contract import CommitAnswer, CommitEntry, CommitOutcome
from fluvial_queue.jobs import Job
from fluvial_queue.kit.clock import VirtualClock
from fluvial_queue.kit.instances import instance_name

MAX_LINES: Final = 100_000  # what is older is forgotten


class History:
    """A line for each thing that happened; made into text only when somebody looks."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._start_ms = clock.now_ms
        self._lines: deque[tuple[int, Callable[[], str]]] = deque(maxlen=MAX_LINES)

    def add(self, text: str) -> None:
        """Note something."""
        self._note(lambda: text)

    def committed(self, owner: object, entry: CommitEntry, answer: CommitAnswer) -> None:
        """Note a commit and what the store said to it."""
        self._note(partial(_committed, str(owner), entry, answer))

    def invoked(self, owner: object, job: Job, instance: int) -> None:
        """Note that an invocation begins."""
        self._note(partial(_invoked, str(owner), job_name(job), instance))

    def lines(self) -> list[str]:
        """Return the history as text: the seconds since its beginning, and what happened."""
        return [f"{(at_ms - self._start_ms) / 1000:>10.3f} {text()}" for at_ms, text in self._lines]

    def _note(self, text: Callable[[], str]) -> None:
        self._lines.append((self._clock.now_ms, text))


def job_name(job: Job) -> str:
    """Name an invocation for people."""
    if job.kind == "turn":
        return f"a turn of {job.view.workflow}"
    step = job.view.steps.get(job.step_id)
    return f"{'a step' if step is None else step.name} ({job.step_id}, attempt {job.attempt})"


def entry_name(entry: CommitEntry) -> str:
    """Name a commit for people."""
    return _events_name([decode_event(event) for event in entry.events])


def _invoked(owner: str, name: str, instance: int) -> str:
    return f"{owner}: invokes {name} in {instance_name(instance)}"


def _committed(owner: str, entry: CommitEntry, answer: CommitAnswer) -> str:
    refused = "" if answer.outcome is CommitOutcome.OK else f": refused, {answer.outcome.value}"
    return f"{owner}: commits {entry_name(entry)} of {entry.run_id}{refused}"


def _events_name(events: Sequence[Event]) -> str:
    return ", ".join(map(_event_name, events)) or "nothing but deletions"


def _event_name(event: Event) -> str:
    if event.type is EventType.STEP_SCHEDULED:
        return f"{event.type.name} {event.id} {event.meta.get('name')}"
    return f"{event.type.name} {event.id}" if event.id else event.type.name
