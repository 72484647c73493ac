"""What a run waits for: a value for each thing, and what is to be expected first at the front.

It is read off the run's log, by the same view that its owner has, and off what the dispatcher knows
of its invocations. Nothing is decided by it, so it may be a moment older than what happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from fluvial.events import Event, EventType, decode_event
from fluvial.ids import continued_run_id
from fluvial_gateway.activity import Activity
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.step_views import StepView
from fluvial_queue.views import OPENS, RunView, unpack_turn

Kind = Literal[
    "end",  # nothing: it has ended
    "pause",  # somebody to resume it
    "owner",  # a gateway to own its partition
    "start",  # the time at which it begins
    "turn",  # its own code, which is advanced or about to be
    "step",  # a step that is executed or about to be
    "retry",  # the time of a step's next attempt
    "sleep",  # the end of a sleep
    "child",  # the end of a child run
    "hook",  # a payload for a hook
    "timeout",  # a timer of the workflow that is no sleep
]
# What is to be expected first: what stops everything, what is under way, what has its time, what
# others do, what people do; a timeout is what a wait for something else is limited by.
_ORDER: Final[dict[Kind, int]] = {
    "end": 0,
    "pause": 1,
    "owner": 2,
    "start": 3,
    "turn": 4,
    "step": 5,
    "retry": 7,
    "sleep": 7,
    "child": 8,
    "hook": 9,
    "timeout": 10,
}
_TIMED: Final[frozenset[Kind]] = frozenset({"retry", "sleep", "timeout"})
_CLOSES: Final = frozenset(
    {
        EventType.STEP_COMPLETED,
        EventType.STEP_FAILED,
        EventType.STEP_CANCELLED,
        EventType.TIMER_FIRED,
        EventType.TIMER_CANCELLED,
        EventType.HOOK_CLOSED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
        EventType.CHILD_CANCELLED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """One thing that a run waits for."""

    kind: Kind
    operation: int = 0  # the id of the step, timer, hook or child in the run; 0: the run itself
    since_ms: int | None = None
    until_ms: int | None = None  # when it comes by itself, or at the latest
    name: str = ""  # the step's, the hook's, or the child's workflow
    attempt: int = 0
    instance: str = ""
    state: str = ""  # of a turn or step: as `Activity.state`; empty: about to start
    problem: str = ""  # why it was refused, failed before, or is paused
    code: str = ""  # of a pause that nobody asked for
    by: str = ""  # who has paused it
    token: str = ""  # of the hook
    is_webhook: bool = False  # requests to its URL resume it, and nothing else
    run_id: str = ""  # the child, or the run that went on in its place
    activity: Activity | None = None

    @property
    def rank(self) -> tuple[int, int, int]:
        """By this what a run waits for is sorted."""
        is_behind = self.kind == "step" and self.state != "executing"
        at_ms = self.until_ms if self.kind in _TIMED else self.since_ms
        return _ORDER[self.kind] + is_behind, at_ms or 0, self.operation


@dataclass(slots=True)
class History:
    """A run's log, read for what is open in it, and since when."""

    view: RunView
    opened: dict[int, Event] = field(default_factory=dict[int, Event])  # without payloads
    retries: dict[int, Event] = field(default_factory=dict[int, Event])  # likewise
    paused: Event | None = None
    cancelled: Event | None = None
    last_ms: int | None = None

    @classmethod
    def of(cls, record: RunRecord) -> History:
        """Return the history of a run whose log is still to be read."""
        return cls(RunView(record))

    def read(self, record: RunRecord, events: Sequence[bytes]) -> None:
        """Take in the next events of the log."""
        for encoded in events:
            event = decode_event(encoded)
            self.view.apply(encoded, event)
            self._take(event)
        if record.turn:  # now and not at the end, so that not all inputs are held until then
            consumed, turn_id = unpack_turn(record.turn)
            self.view.advance(min(consumed, self.view.inputs), turn_id, None)

    def _take(self, event: Event) -> None:
        kind = event.type
        self.last_ms = event.at_ms
        if kind in OPENS:
            self.opened[event.id] = replace(event, payload=b"")
        elif kind is EventType.STEP_RETRYING:
            self.retries[event.id] = replace(event, payload=b"")
        elif kind is EventType.RUN_PAUSED:
            self.paused = event
        elif kind is EventType.CANCEL_REQUESTED:
            self.cancelled = event
        elif kind in _CLOSES:
            self.opened.pop(event.id, None)
            self.retries.pop(event.id, None)


def awaited_of(
    record: RunRecord,
    history: History,
    activities: Sequence[Activity] | None,
    *,
    is_owned: bool,
    now_ms: int,
) -> list[Awaited]:
    """Return what a run waits for, what is to be expected first at the front; never empty.

    Args:
        record: the run.
        history: its whole log.
        activities: what the dispatcher knows; None: the run's partition is not this gateway's.
        is_owned: whether any gateway owns the partition.
        now_ms: by the store's clock.
    """
    if record.status.is_terminal:
        return [_end(record)]
    found = [] if is_owned else [Awaited(kind="owner")]
    start_at = record.meta.get("start_at", 0)
    if record.status is RunStatus.PENDING:
        if start_at > now_ms:
            return [*found, Awaited(kind="start", since_ms=record.created_ms, until_ms=start_at)]
        return [*found, _turn(history, activities or ()) or _about_to_go_on(record, history)]
    is_paused = record.status is RunStatus.PAUSED
    if is_paused:
        found.append(_pause(record, history))
    turn = _turn(history, activities or ())
    if turn is not None:
        found.append(turn)
    elif history.view.pending and not is_paused:
        found.append(_about_to_go_on(record, history))
    found += _steps(history, activities or (), is_paused=is_paused)
    found += _timers(history)
    found += _hooks(history)
    found += _children(history)
    return sorted(found, key=lambda awaited: awaited.rank) or [_about_to_go_on(record, history)]


def _end(record: RunRecord) -> Awaited:
    went_on = record.status is RunStatus.CONTINUED
    next_run = continued_run_id(record.run_id) if went_on else ""
    return Awaited(kind="end", since_ms=record.finished_ms, run_id=next_run)


def _pause(record: RunRecord, history: History) -> Awaited:
    meta = history.paused.meta if history.paused is not None else {}
    return Awaited(
        kind="pause",
        since_ms=history.paused.at_ms if history.paused is not None else None,
        problem=record.reason,
        code=str(meta.get("code", "")),
        by=str(meta.get("by", "")),
    )


def _about_to_go_on(record: RunRecord, history: History) -> Awaited:
    return Awaited(kind="turn", since_ms=history.last_ms or record.created_ms)


def _turn(history: History, activities: Sequence[Activity]) -> Awaited | None:
    activity = next((a for a in activities if a.kind == "turn"), None)
    if activity is None:
        return None
    return Awaited(
        kind="turn",
        since_ms=activity.since_ms or history.last_ms,
        instance=activity.instance,
        state=activity.state,
        problem=activity.problem,
        activity=activity,
    )


def _steps(
    history: History, activities: Sequence[Activity], *, is_paused: bool
) -> Iterator[Awaited]:
    under_way = {a.step_id: a for a in activities if a.kind == "step"}
    for step_id, step in history.view.steps.items():
        activity = under_way.get(step_id)
        failed = history.retries.get(step_id)
        if activity is not None:
            yield _step(history, step_id, step, activity)
        elif is_paused:
            continue  # it is asked for again once the run is resumed
        elif step.retry_timer is not None and failed is not None:
            yield Awaited(
                kind="retry",
                operation=step_id,
                name=step.name,
                attempt=step.attempt,
                since_ms=failed.at_ms,
                until_ms=failed.at_ms + failed.meta["delay_ms"],
                problem=str(failed.meta.get("reason", "")),
            )
        else:
            yield _step(history, step_id, step, None)


def _step(history: History, step_id: int, step: StepView, activity: Activity | None) -> Awaited:
    since_ms = activity.since_ms if activity is not None and activity.since_ms else None
    is_executing = activity is not None and activity.state == "executing"
    ends = [step.expires_ms] if step.expires_ms else []
    if is_executing and since_ms and step.timeout_ms:
        ends.append(since_ms + step.timeout_ms)
    return Awaited(
        kind="step",
        operation=step_id,
        name=step.name,
        attempt=step.attempt,
        since_ms=since_ms or _opened_ms(history, step_id),
        until_ms=min(ends, default=None),
        instance=activity.instance if activity is not None else "",
        state=activity.state if activity is not None else "",
        problem=activity.problem if activity is not None else "",
        activity=activity,
    )


def _timers(history: History) -> Iterator[Awaited]:
    for timer_id, timer in history.view.timers.items():
        yield Awaited(
            kind="sleep" if timer.is_sleep else "timeout",
            operation=timer_id,
            since_ms=_opened_ms(history, timer_id),
            until_ms=timer.due_ms,
        )


def _hooks(history: History) -> Iterator[Awaited]:
    for opened in history.opened.values():
        token = opened.meta.get("token")
        if opened.type is EventType.HOOK_OPENED and token in history.view.hooks:
            yield Awaited(
                kind="hook",
                operation=opened.id,
                since_ms=opened.at_ms,
                name=str(opened.meta.get("name") or ""),
                token=token,
                is_webhook="webhook" in opened.meta,
            )


def _children(history: History) -> Iterator[Awaited]:
    for child_id, child in history.view.children.items():
        yield Awaited(
            kind="child",
            operation=child_id,
            since_ms=_opened_ms(history, child_id),
            name=child.workflow,
            run_id=child.run_id,
        )


def _opened_ms(history: History, operation: int) -> int | None:
    opened = history.opened.get(operation)
    return opened.at_ms if opened is not None else None
