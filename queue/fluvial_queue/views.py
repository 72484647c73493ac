"""The owner's view of one run: what its event log says, kept up to date event by event.

A view is a projection. It is built once from the log (`RunView.load`) and afterwards changed only
by events that a commit has acknowledged (`apply`, `advance`), so it never runs ahead of the store.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fluvial.events import INPUTS, TERMINAL, Event, EventType, decode_event
from fluvial_queue.contract import RunRecord, RunStatus
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.step_views import StepView

_TURN = struct.Struct(">I8s")  # inputs consumed, turn id
_STATUS = {
    EventType.RUN_STARTED: RunStatus.RUNNING,
    EventType.RUN_PAUSED: RunStatus.PAUSED,
    EventType.RUN_RESUMED: RunStatus.RUNNING,
    EventType.RUN_COMPLETED: RunStatus.COMPLETED,
    EventType.RUN_FAILED: RunStatus.FAILED,
    EventType.RUN_CANCELLED: RunStatus.CANCELLED,
    EventType.RUN_TERMINATED: RunStatus.TERMINATED,
    EventType.RUN_CONTINUED: RunStatus.CONTINUED,
    EventType.RUN_FORKED: RunStatus.RUNNING,
}
OPENS = frozenset(
    {
        EventType.STEP_SCHEDULED,
        EventType.TIMER_SET,
        EventType.HOOK_OPENED,
        EventType.CHILD_SCHEDULED,
    }
)

_OF_CHILDREN = frozenset(
    {
        EventType.CHILD_SCHEDULED,
        EventType.CHILD_CANCELLED,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
    }
)


@dataclass(slots=True)
class TimerView:
    """A timer that has not fired."""

    due_ms: int  # by the author's knowledge of the store's clock
    is_sleep: bool  # not a timeout: it may be ended early


@dataclass(slots=True)
class ChildView:
    """A child run that has not ended."""

    run_id: str
    workflow: str
    policy: str  # what becomes of it when this run ends


class RunView:
    """One run as its owner sees it."""

    __slots__ = (
        "app",
        "cancelled",
        "children",
        "consumed",
        "created_ms",
        "deployment",
        "hooks",
        "inputs",
        "is_forked",
        "last_id",
        "length",
        "live_on",
        "meta",
        "pending",
        "priority",
        "retention_ms",
        "run_id",
        "started_input",
        "state_at",
        "status",
        "steps",
        "tags",
        "timers",
        "turn_id",
        "turns_lost",
        "workflow",
    )

    def __init__(self, record: RunRecord) -> None:
        self.run_id = record.run_id
        self.app = record.app
        self.workflow = record.workflow
        self.deployment = record.deployment
        self.created_ms = record.created_ms
        self.status = RunStatus.PENDING
        self.started_input = record.input  # the payload of RUN_STARTED, until it is in the log
        self.length = 0  # of the log
        self.inputs = 0  # input events in the log
        self.consumed = 0  # how many of them a committed turn has consumed
        self.pending: list[bytes] = []  # the others, encoded
        self.turn_id: bytes | None = None  # the identity of the coroutine after the last turn
        self.live_on: str | None = None  # the instance that holds it, as far as is known
        self.steps: dict[int, StepView] = {}
        self.timers: dict[int, TimerView] = {}
        self.hooks: dict[str, OpenHook] = {}
        self.children: dict[int, ChildView] = {}
        self.meta = record.meta
        self.tags = dict(record.tags)
        self.priority = int(record.meta.get("priority", 0))
        self.retention_ms = record.retention_ms
        self.is_forked = False  # RUN_FORKED stands in the log
        self.cancelled = False
        self.turns_lost = 0
        self.state_at: int | None = None  # where the log has what it published last
        self.last_id = 0  # the greatest id that the workflow has given to anything

    @classmethod
    def load(cls, record: RunRecord, events: Iterable[bytes]) -> RunView:
        """Return the view that a log gives."""
        view = cls(record)
        for encoded in events:
            view.apply(encoded, decode_event(encoded))
        if record.turn:
            consumed, turn_id = unpack_turn(record.turn)
            view.advance(consumed, turn_id, None)
        view.tags = dict(record.tags)  # the record has every change already
        return view

    @property
    def awaits_fork(self) -> bool:
        """Whether the log begins with another run's, and nothing of it is under way here yet."""
        return "origin" in self.meta and not self.is_forked

    def apply(self, encoded: bytes, event: Event) -> None:
        """Take in one event that is now in the log."""
        self.length += 1
        kind = event.type
        if kind in INPUTS:
            self.inputs += 1
            self.pending.append(encoded)
        if kind in OPENS:
            self.last_id = event.id
        if kind in _STATUS:
            self.status = _STATUS[kind]
        if kind is EventType.STEP_SCHEDULED:
            self.steps[event.id] = StepView(event.payload, event.meta, event.at_ms)
        elif kind in (EventType.STEP_COMPLETED, EventType.STEP_FAILED, EventType.STEP_CANCELLED):
            self.steps.pop(event.id, None)
        elif kind is EventType.STEP_RETRYING:
            self._retry(event)
        elif kind is EventType.ATTEMPT_LOST:
            self.steps[event.id].lost += 1
            self.steps[event.id].remember(event)
        elif kind is EventType.TURN_LOST:
            self.turns_lost += 1
        elif kind is EventType.TIMER_SET:
            due_ms = event.at_ms + event.meta["delay_ms"]
            self.timers[event.id] = TimerView(due_ms, bool(event.meta.get("sleep")))
        elif kind in (EventType.TIMER_FIRED, EventType.TIMER_CANCELLED):
            self.timers.pop(event.id, None)
        elif kind is EventType.HOOK_OPENED:
            self.hooks[event.meta["token"]] = OpenHook(event.id, self.length - 1)
        elif kind in (EventType.HOOK_CLOSED, EventType.HOOK_CONFLICT):
            self.hooks.pop(event.meta["token"], None)
        elif kind in _OF_CHILDREN:
            self._take_child(event)
        elif kind is EventType.STATE_PUBLISHED:
            self.state_at = self.length - 1
        elif kind in (EventType.TAGS_SET, EventType.TAGS_CHANGED):
            self.tags = merged_tags(self.tags, event.meta["tags"])
        elif kind is EventType.CANCEL_REQUESTED:
            self.cancelled = True
        elif kind is EventType.RUN_FORKED:
            self._fork(event)
        elif kind is EventType.RUN_RESUMED:
            self._begin_anew(event)
        elif kind in TERMINAL:
            self._end()

    def advance(self, consumed: int, turn_id: bytes, instance: str | None) -> None:
        """Take in that a committed turn has consumed the first `consumed` inputs."""
        del self.pending[: consumed - self.consumed]
        self.consumed = consumed
        self.turn_id = turn_id
        self.live_on = instance
        self.turns_lost = 0

    def is_only_outstanding(self, step_id: int) -> bool:
        """Whether this step is all that the run waits for (open hooks do not count): then its
        invocation may carry over into the next turn."""
        return (
            len(self.steps) == 1
            and step_id in self.steps
            and not self.timers
            and not self.children
            and not self.pending
            and self.turn_id is not None
        )

    def timer_bodies(self) -> list[bytes]:
        """Return the bodies of all timers that the run may have in the store."""
        bodies = [timer_body(self.run_id, timer) for timer in self.timers]
        for step_id, step in self.steps.items():
            if step.retry_timer:
                bodies.append(step.retry_timer)
            if step.expires_ms:
                bodies.append(timer_body(self.run_id, step_id))
        if self.cancelled:
            bodies.append(cancel_deadline_body(self.run_id))
        return bodies

    def _retry(self, event: Event) -> None:
        step = self.steps[event.id]
        step.attempt = event.meta["attempt"] + 1
        body = step_body(self.run_id, event.id, step.attempt)
        step.retry_timer = body if event.meta["delay_ms"] else None
        step.remember(event)

    def _fork(self, event: Event) -> None:
        self.is_forked = True
        for step in self.steps.values():
            step.scheduled_ms = event.at_ms  # a deadline counts from here on
            step.forget_progress()  # it is sealed for the other run

    def _take_child(self, event: Event) -> None:
        if event.type is not EventType.CHILD_SCHEDULED:
            self.children.pop(event.id, None)
        elif event.meta["policy"] != "detach":
            meta = event.meta
            self.children[event.id] = ChildView(meta["run"], meta["workflow"], meta["policy"])

    def _begin_anew(self, event: Event) -> None:
        """A resumed run asks for everything at once, and has all its chances again."""
        self.turns_lost = 0
        deployment = event.meta.get("deployment")
        if deployment is not None:
            self.deployment = deployment
            self.turn_id = self.live_on = None  # the coroutine is the old deployment's
        for step in self.steps.values():
            step.lost = 0
            step.retry_timer = None

    def _end(self) -> None:
        self.steps.clear()
        self.timers.clear()
        self.hooks.clear()
        self.children.clear()
        self.pending.clear()


def merged_tags(tags: Mapping[str, str], change: Mapping[str, str | None]) -> dict[str, str]:
    """Return tags with a change applied: None takes a tag away."""
    merged: dict[str, str | None] = {**tags, **change}
    return {name: value for name, value in merged.items() if value is not None}


def pack_turn(consumed: int, turn_id: bytes) -> bytes:
    """Return the value that a turn's commit leaves on the run record."""
    return _TURN.pack(consumed, turn_id)


def unpack_turn(value: bytes) -> tuple[int, bytes]:
    """Return (inputs consumed, turn id) of a value made by `pack_turn`."""
    consumed, turn_id = _TURN.unpack(value)
    return consumed, turn_id


def turn_body(run_id: str) -> bytes:
    """Return the body of a wake-up."""
    return Message(MessageKind.TURN, run_id).encode()


def step_body(run_id: str, step_id: int, attempt: int) -> bytes:
    """Return the body of the message that asks for one attempt of a step."""
    return Message(MessageKind.STEP, run_id, step_id, attempt).encode()


def timer_body(run_id: str, timer_id: int) -> bytes:
    """Return the body of the message that a due timer becomes; a step's id: its deadline's."""
    return Message(MessageKind.TIMER, run_id, timer_id).encode()


def cancel_deadline_body(run_id: str) -> bytes:
    """Return the body of the message that ends a cancelled run whose clean-up takes too long."""
    meta = {"reason": "cancel_deadline"}
    return Message(MessageKind.TERMINATE, run_id, meta=meta).encode()
