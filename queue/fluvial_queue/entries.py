"""Drafts of commit entries: what a turn's outputs, a step's result or an input change in the store.

A draft begins on a run's view and takes items in order; each sees what the items before it did. It
never changes the view: the sequencer applies the draft's events once the commit is acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fluvial.events import INPUTS, TERMINAL, Event, EventType
from fluvial_queue.contract import CommitEntry, Lease, RunStatus
from fluvial_queue.effects import close_child, start_child, start_next, tell_parent
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.outstanding import Outstanding
from fluvial_queue.step_views import StepView
from fluvial_queue.views import (
    ChildView,
    RunView,
    cancel_deadline_body,
    merged_tags,
    pack_turn,
    step_body,
    timer_body,
    turn_body,
)

DEADLINE_GRACE_MS = 1_000  # for the instance, which judges a late attempt better than the owner

_END_STATUS = {
    EventType.RUN_COMPLETED: RunStatus.COMPLETED,
    EventType.RUN_FAILED: RunStatus.FAILED,
    EventType.RUN_CANCELLED: RunStatus.CANCELLED,
    EventType.RUN_TERMINATED: RunStatus.TERMINATED,
    EventType.RUN_CONTINUED: RunStatus.CONTINUED,
}


@dataclass(slots=True, eq=False)
class ReadyTurn:
    """An evaluated turn whose outputs may be committed onto `job.base`."""

    job: Job
    events: Sequence[Event]
    encoded: Sequence[bytes]
    turn_id: bytes
    instance: str
    conflicts: frozenset[str] = frozenset()  # hook tokens that other runs hold


@dataclass(slots=True, eq=False)
class ReadyResult:
    """What became of a job other than a whole turn: exactly one of `end`, `lost`, `pause`."""

    message_id: str
    job: Job
    end: Event | None  # how a step's attempt ended
    carried: ReadyTurn | None = None  # the turn that the step's invocation took along
    lost: str = ""  # why an execution was cut off
    pause: str = ""  # why the run cannot go on


class EntryDraft:
    """One commit entry in the making; `add_…` in the order in which things shall stand in the log.

    Once an item has ended the run (`ends_run()`), nothing may be added.
    """

    def __init__(self, view: RunView, outstanding: Outstanding, now_ms: int) -> None:
        self.view = view
        self.events: list[Event] = []
        self.results: list[ReadyResult] = []  # to be offered again if the entry is refused
        self.done: dict[str, str] = {}  # effects that were carried out; likewise
        self.turn: ReadyTurn | None = None
        self.consumed = view.consumed
        self._is_terminal = False
        self._outstanding = outstanding
        self._now_ms = now_ms
        self._encoded: list[bytes] = []
        self._handled: dict[str, None] = {}  # an ordered set
        self._messages: list[bytes] = []
        self._timers: list[tuple[int, bytes]] = []
        self._drop_timers: list[bytes] = []
        self._open_hooks: dict[str, int] = {}
        self._close_hooks: dict[str, None] = {}
        self._ended: set[int] = set()  # steps, timers and children that this entry ends
        self._effects: list[bytes] = []
        self._children: dict[int, ChildView] = {}  # that this entry starts
        self._tags: dict[str, str] | None = None
        self._status: RunStatus | None = None
        self._deployment: str | None = None  # where the run goes on from this entry on
        self._reason: str | None = None  # why the run is paused from this entry on
        self._state_at: int | None = None  # where the log has what the run published last
        self._inputs = 0  # input events in this entry
        self._paused = view.status is RunStatus.PAUSED
        self.entry: CommitEntry | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the entry would change anything."""
        return bool(self._handled)

    def ends_run(self) -> bool:
        """Whether an item has ended the run."""
        return self._is_terminal

    def build(self) -> CommitEntry:
        """Return the entry; the draft must not change afterwards."""
        self.entry = CommitEntry(
            run_id=self.view.run_id,
            handled=tuple(self._handled),
            base=self.view.length,
            events=tuple(self._encoded),
            messages=tuple(self._messages),
            timers=tuple(self._timers),
            drop_timers=tuple(self._drop_timers),
            open_hooks=tuple(self._open_hooks.items()),
            close_hooks=tuple(self._close_hooks),
            status=self._status,
            turn=None if self.turn is None else pack_turn(self.consumed, self.turn.turn_id),
            deployment=self._deployment,
            effects=tuple(self._effects),
            tags=self._tags,
            reason=self._reason,
            state_at=self._state_at,
        )
        return self.entry

    # ---- items ----

    def add_turn(self, turn: ReadyTurn) -> None:
        """Take in a turn's outputs, if the log is still the one that it saw."""
        if turn.job.base != self.view.length or self.events:
            return
        self._handled[turn.job.message_id] = None
        self._add_outputs(turn, turn.job.inputs)

    def add_result(self, result: ReadyResult) -> None:
        """Take in what became of a step, or of an invocation that was cut off."""
        if result.message_id not in self._outstanding.all or result.message_id in self._handled:
            return
        self.results.append(result)
        if result.pause:
            self.pause(result.message_id, result.pause)
        elif result.lost:
            self._add_lost(result)
        elif result.end is not None:
            self._add_end(result, result.end)

    def add_done(self, message_id: str, problem: str = "") -> None:
        """Take in that an effect was carried out, or why it never can be.

        The latter is an input of the workflow where the effect was to start a child."""
        message = self._outstanding.all.get(message_id)
        if message is None:
            return
        self.done[message_id] = problem
        self._handled[message_id] = None
        if problem and self._child(message.id) is not None:
            self._ended.add(message.id)
            meta = {"run": message.meta["run"], "status": "not_started", "reason": problem}
            self._add(Event(EventType.CHILD_FAILED, self._now_ms, message.id, meta=meta))

    def add_inputs(self) -> None:
        """Take in the messages that become input events, and those that change how it goes on."""
        for message_id, message in self._outstanding.inputs.items():
            if message_id in self._handled:
                continue
            if message.kind in (MessageKind.CANCEL, MessageKind.TERMINATE, MessageKind.PAUSE):
                continue
            if self._has_not_begun() and message.kind is not MessageKind.START:
                continue  # RUN_STARTED is the first event of every log
            if message.kind is MessageKind.TIMER and self.results and message.id in self.view.steps:
                continue  # a step's deadline: this entry may have changed the step
            if message.kind is MessageKind.RESUME and self._paused:
                if self._must_stay_paused():
                    continue
                self._resume(message)
            self._handled[message_id] = None
            if message.kind is MessageKind.START and self.view.awaits_fork:
                self._begin_fork()
            elif message.kind is MessageKind.WAKE:
                self._wake(message)
            elif message.kind is MessageKind.RETRY:
                self._retry_now()
            elif message.kind is MessageKind.TAG:
                change = message.meta["tags"]
                meta = {"tags": change, **_author(message)}
                self._set_tags(change)
                self._add(Event(EventType.TAGS_CHANGED, self._now_ms, meta=meta))
            elif (event := self._input(message)) is not None:
                self._add(event)

    def add_pause(self) -> None:
        """Take in requests to pause; before the run has begun they wait."""
        if self._has_not_begun() or self.view.awaits_fork:
            return
        for message_id, message in self._outstanding.inputs.items():
            if message.kind is MessageKind.PAUSE and message_id not in self._handled:
                reason = str(message.meta.get("reason") or "requested")
                self.pause(message_id, reason, author=_author(message))

    def add_cancel(self, grace_ms: int) -> None:
        """Take in requests to cancel; the run must have ended `grace_ms` after the first."""
        for message_id, message in self._outstanding.inputs.items():
            if message.kind is not MessageKind.CANCEL or message_id in self._handled:
                continue
            if self._paused and self._must_stay_paused():
                continue
            self._handled[message_id] = None
            if self.view.cancelled or self._ended_by_cancel():
                continue
            if self._has_not_begun():
                self._add(Event(EventType.RUN_CANCELLED, self._now_ms))
                self._end(RunStatus.CANCELLED)
                return
            meta = {"reason": str(message.meta.get("reason", "")), **_author(message)}
            self._add(Event(EventType.CANCEL_REQUESTED, self._now_ms, meta=meta))
            self._timers.append((grace_ms, cancel_deadline_body(self.view.run_id)))
            if self._paused:
                self._resume(None)

    def terminate(self, message: Message) -> None:
        """End the run at once: abandoned steps are named, everything else is deleted."""
        for step_id, step in self.view.steps.items():
            meta = {"attempt": step.attempt}
            self._add(Event(EventType.STEP_ABANDONED, self._now_ms, step_id, meta=meta))
        meta_end = {"reason": str(message.meta.get("reason", "")), **_author(message)}
        self._add(Event(EventType.RUN_TERMINATED, self._now_ms, meta=meta_end))
        self._end(RunStatus.TERMINATED)

    def check_waiting(self, lease: Lease, limit: int) -> None:
        """Drop requests for attempts that are over; record attempts that an earlier owner may have
        started before they start again."""
        for message_id, message in self._outstanding.waiting.items():
            if self._outstanding.is_moot(message_id, message, self.view):
                self._handled[message_id] = None
            elif self._outstanding.may_have_started(message_id, lease):
                self.lose_step(message_id, message, "owner_changed", limit)

    def lose_step(
        self, message_id: str, message: Message, reason: str, limit: int, job: Job | None = None
    ) -> None:
        """A step's execution was cut off: record it and ask again, or pause a poisonous run."""
        step = self.view.steps.get(message.id)
        self._handled[message_id] = None
        if step is None or message.id in self._ended:
            return
        if step.is_at_most_once:
            self._add(self._fail_step(message.id, step, "interrupted", cause=reason))
            return
        meta: dict[str, object] = {"attempt": step.attempt, "lost": step.lost + 1, "reason": reason}
        if job is not None and job.started_ms:
            meta["started_ms"] = job.started_ms
        if job is not None and job.progress:
            meta["progress"] = job.progress
        self._add(Event(EventType.ATTEMPT_LOST, self._now_ms, message.id, meta=meta))
        if step.lost + 1 >= limit:
            self.pause(message_id, f"step {step.name} was cut off {limit} times: {reason}")
        else:
            self._messages.append(step_body(self.view.run_id, message.id, step.attempt))

    def pause(self, message_id: str, reason: str, *, author: dict[str, str] | None = None) -> None:
        """Stop the run until somebody resumes it; what could be dispatched leaves the queue."""
        self._handled[message_id] = None
        if self._paused:
            return
        self._paused = True
        self._status = RunStatus.PAUSED
        self._reason = reason
        meta = {"reason": reason, **(author or {})}
        self._add(Event(EventType.RUN_PAUSED, self._now_ms, meta=meta))
        self._handled.update(dict.fromkeys(self._outstanding.waiting))
        self._handled.update(dict.fromkeys(self._outstanding.turns))
        self._messages.clear()

    def settle_wake_ups(self) -> None:
        """Have exactly the wake-ups that are needed: one if inputs are left to consume."""
        if self._paused:
            return
        left = self.view.inputs + self._inputs - self.consumed
        waiting = [m for m in self._outstanding.turns if m not in self._handled]
        if left == 0:
            self._handled.update(dict.fromkeys(waiting))
        elif not waiting and self._handled:
            self._messages.append(turn_body(self.view.run_id))

    # ---- how each thing is recorded ----

    def _add(self, event: Event, encoded: bytes | None = None) -> None:
        self.events.append(event)
        self._encoded.append(event.encode() if encoded is None else encoded)
        if event.type in INPUTS:
            self._inputs += 1

    def _add_outputs(self, turn: ReadyTurn, consumed: int) -> None:
        self.turn = turn
        self.consumed = consumed
        for event, encoded in zip(turn.events, turn.encoded, strict=True):
            if event.type is EventType.HOOK_OPENED and event.meta["token"] in turn.conflicts:
                self._add(event, encoded)
                meta = {"token": event.meta["token"]}
                self._add(Event(EventType.HOOK_CONFLICT, self._now_ms, event.id, meta=meta))
                continue
            self._add(event, encoded)
            self._follow(event)

    def _follow(self, event: Event) -> None:
        """Add what belongs to an output: messages, timers, hooks, the end."""
        run_id = self.view.run_id
        match event.type:
            case EventType.STEP_SCHEDULED:
                self._messages.append(step_body(run_id, event.id, 1))
                if "deadline_ms" in event.meta:
                    late_ms = event.meta["deadline_ms"] + DEADLINE_GRACE_MS
                    self._timers.append((late_ms, timer_body(run_id, event.id)))
            case EventType.STEP_CANCELLED:
                self._cancel_step(event.id)
            case EventType.TIMER_SET:
                self._timers.append((event.meta["delay_ms"], timer_body(run_id, event.id)))
            case EventType.TIMER_CANCELLED:
                self._cancel_timer(event.id)
            case EventType.HOOK_OPENED:
                self._open_hooks[event.meta["token"]] = event.id
            case EventType.HOOK_CLOSED:
                self._close_hook(event.meta["token"])
            case EventType.CHILD_SCHEDULED:
                self._start_child(event)
            case EventType.CHILD_CANCELLED:
                self._give_child_up(event.id)
            case EventType.STATE_PUBLISHED:
                self._state_at = self.view.length + len(self.events) - 1
            case EventType.TAGS_SET:
                self._set_tags(event.meta["tags"])
            case EventType.RUN_CONTINUED:
                self._effects.append(start_next(self.view, event, self._latest_tags, self._now_ms))
                self._end(RunStatus.CONTINUED)
            case _ if event.type in TERMINAL:
                self._end(_END_STATUS[event.type])
            case _:
                pass

    def _cancel_step(self, step_id: int) -> None:
        step = self.view.steps.get(step_id)
        if step is not None:
            self._withdraw_step(step_id, step)
            return
        self._ended.add(step_id)
        fresh = step_body(self.view.run_id, step_id, 1)
        if fresh in self._messages:
            self._messages.remove(fresh)
        self._drop_timer(step_id)

    def _fail_step(self, step_id: int, step: StepView, reason: str, *, cause: str = "") -> Event:
        """Return the end of a step that no instance has judged."""
        self._withdraw_step(step_id, step)
        meta = {"attempt": step.attempt, "reason": reason}
        if cause:
            meta["cause"] = cause
        return Event(EventType.STEP_FAILED, self._now_ms, step_id, meta=meta)

    def _withdraw_step(self, step_id: int, step: StepView) -> None:
        self._ended.add(step_id)
        message_id = self._outstanding.steps.get((step_id, step.attempt))
        if message_id is not None:
            self._handled[message_id] = None
        if step.retry_timer is not None:
            self._drop_timers.append(step.retry_timer)
        if step.expires_ms:
            self._drop_timer(step_id)

    def _cancel_timer(self, timer_id: int) -> None:
        self._ended.add(timer_id)
        self._drop_timer(timer_id)

    def _drop_timer(self, timer_id: int) -> None:
        body = timer_body(self.view.run_id, timer_id)
        self._timers = [timer for timer in self._timers if timer[1] != body]
        self._drop_timers.append(body)

    def _close_hook(self, token: str) -> None:
        if self._open_hooks.pop(token, None) is None:
            self._close_hooks[token] = None

    def _start_child(self, event: Event) -> None:
        meta = event.meta
        self._effects.append(start_child(self.view, event))
        if meta["policy"] != "detach":
            self._children[event.id] = ChildView(meta["run"], meta["workflow"], meta["policy"])

    def _child(self, child_id: int) -> ChildView | None:
        """Return a child that has not ended, as of this entry."""
        if child_id in self._ended:
            return None
        return self._children.get(child_id) or self.view.children.get(child_id)

    def _give_child_up(self, child_id: int) -> None:
        child = self._child(child_id)
        self._ended.add(child_id)
        if child is not None:
            self._close(child_id, child)

    def _close(self, child_id: int, child: ChildView) -> None:
        effect = close_child(self.view, child_id, child)
        if effect is not None:
            self._effects.append(effect)

    def _set_tags(self, change: Mapping[str, str | None]) -> None:
        self._tags = merged_tags(self._latest_tags, change)

    @property
    def _latest_tags(self) -> dict[str, str]:
        return self.view.tags if self._tags is None else self._tags

    def _end(self, status: RunStatus) -> None:
        self._is_terminal = True
        self._status = status
        for child_id, child in {**self.view.children, **self._children}.items():
            if child_id not in self._ended:
                self._close(child_id, child)
        told = tell_parent(self.view, self.events[-1])
        if told is not None:
            self._effects.append(told)
        self._handled.update(dict.fromkeys(self._outstanding.without_effects()))
        self._messages.clear()
        self._timers.clear()
        self._open_hooks.clear()
        self._drop_timers = self.view.timer_bodies()
        self._close_hooks = dict.fromkeys(self.view.hooks)

    def _add_end(self, result: ReadyResult, end: Event) -> None:
        self._handled[result.message_id] = None
        step = self.view.steps.get(end.id)
        if step is None or end.id in self._ended:
            return
        carried = result.carried
        is_first = not self.events
        self._ended.add(end.id)
        self._add(end)
        if end.type is EventType.STEP_RETRYING:
            self._retry(result, step, end)
            return
        if step.expires_ms:
            self._drop_timer(end.id)
        if carried is not None and is_first and carried.job.base == self.view.length:
            self._add_outputs(carried, self.view.inputs + 1)

    def _retry(self, result: ReadyResult, step: StepView, end: Event) -> None:
        """Ask for the next attempt, now or later; a step that has none left pauses the run."""
        attempt, reason = end.meta["attempt"], end.meta.get("reason", "error")
        if end.meta.get("exhausted"):
            text = f"step {step.name} has used up its attempts ({attempt} so far): {reason}"
            self.pause(result.message_id, text)
            return
        body = step_body(self.view.run_id, end.id, attempt + 1)
        delay_ms = end.meta["delay_ms"]
        if delay_ms:
            self._timers.append((delay_ms, body))
        else:
            self._messages.append(body)

    def _add_lost(self, result: ReadyResult) -> None:
        job = result.job
        if job.kind == "step":
            message = self._outstanding.all[result.message_id]
            self.lose_step(result.message_id, message, result.lost, job.lost_limit, job)
            return
        lost = self.view.turns_lost + 1
        self._handled[result.message_id] = None
        meta = {"attempt": lost, "reason": result.lost}
        self._add(Event(EventType.TURN_LOST, self._now_ms, meta=meta))
        if lost >= job.lost_limit:
            self.pause(result.message_id, f"turns were cut off {lost} times: {result.lost}")

    def _input(self, message: Message) -> Event | None:
        """Return the input event that a message asks for; None if it is moot."""
        view, meta = self.view, message.meta
        if message.kind is MessageKind.START and view.length == 0 and not self.events:
            self._status = RunStatus.RUNNING
            described = {"workflow": view.workflow, "deployment": view.deployment}
            payload = view.started_input
            return Event(EventType.RUN_STARTED, self._now_ms, 0, payload, described)
        if message.kind is MessageKind.TIMER:
            if message.id in view.timers and message.id not in self._ended:
                self._ended.add(message.id)
                return Event(EventType.TIMER_FIRED, self._now_ms, message.id)
            step = view.steps.get(message.id)
            if step is not None and message.id not in self._ended:
                return self._fail_step(message.id, step, "deadline")
        elif message.kind is MessageKind.CHILD:
            return self._end_of_child(message)
        elif message.kind is MessageKind.HOOK:
            token = str(meta["token"])
            hook = self._open_hooks.get(token, view.hooks.get(token))
            if hook is not None and token not in self._close_hooks:
                about = {"token": token, "resume": meta.get("resume", "")}
                received = EventType.HOOK_RECEIVED
                return Event(received, self._now_ms, hook, message.payload, about)
        return None

    def _end_of_child(self, message: Message) -> Event | None:
        child, meta = self._child(message.id), message.meta
        if child is None or child.run_id != meta["first"]:
            return None
        self._ended.add(message.id)
        about = {"run": meta["child"], "hops": meta["hops"]}
        if meta["status"] == "completed":
            completed = EventType.CHILD_COMPLETED
            return Event(completed, self._now_ms, message.id, message.payload, about)
        about |= {"status": meta["status"], "reason": meta["reason"]}
        return Event(EventType.CHILD_FAILED, self._now_ms, message.id, message.payload, about)

    def _wake(self, message: Message) -> None:
        """Let sleeps end now: the one that the message names, or all; a timeout is no sleep."""
        for timer_id, timer in self.view.timers.items():
            is_meant = message.id == timer_id or (message.id == 0 and timer.is_sleep)
            if is_meant and timer_id not in self._ended:
                self._ended.add(timer_id)
                self._drop_timers.append(timer_body(self.view.run_id, timer_id))
                meta = {"early": True, **_author(message)}
                self._add(Event(EventType.TIMER_FIRED, self._now_ms, timer_id, meta=meta))

    def _retry_now(self) -> None:
        """Make the attempts that wait for their time now; a message that is there is not moot."""
        for step_id, step in self.view.steps.items():
            if step.retry_timer is None or step_id in self._ended:
                continue
            self._drop_timers.append(step.retry_timer)
            if (step_id, step.attempt) not in self._outstanding.steps and not self._paused:
                self._messages.append(step.retry_timer)

    def _begin_fork(self) -> None:
        """Ask for everything that the log, which is another run's so far, has open."""
        view = self.view
        self._status = RunStatus.RUNNING
        meta = {"origin": view.meta["origin"], "events": view.length}
        self._add(Event(EventType.RUN_FORKED, self._now_ms, meta=meta))
        for step_id, step in view.steps.items():
            self._messages.append(step_body(view.run_id, step_id, step.attempt))
            if step.expires_ms:
                late_ms = step.expires_ms - step.scheduled_ms + DEADLINE_GRACE_MS
                self._timers.append((late_ms, timer_body(view.run_id, step_id)))
        for timer_id, timer in view.timers.items():
            delay_ms = max(0, timer.due_ms - self._now_ms)
            self._timers.append((delay_ms, timer_body(view.run_id, timer_id)))
        self._open_hooks.update(view.hooks)

    def _must_stay_paused(self) -> bool:
        """Whether this entry itself changes what a resume goes by (see `_resume`)."""
        return bool(self.results) or self.view.status is not RunStatus.PAUSED

    def _has_not_begun(self) -> bool:
        return self.view.length == 0 and not self.events

    def _resume(self, message: Message | None) -> None:
        """Go on, on another deployment if `message` names one; None: a cancel resumes the run.

        Ask again for every step whose message a pause took out of the queue.

        What is missing is read off the view, so nothing in the same entry may have changed a step.
        A retry's timer may have fired, and its message been dropped, while the run was paused: the
        log does not say, so the timer is dropped and the step asked for now. If it has just fired,
        there are two messages for one attempt, of which the second is moot.
        """
        self._paused = False
        self._status = RunStatus.RUNNING
        self._reason = ""
        asked = {} if message is None else message.meta
        meta = {"by": asked["by"]} if asked.get("by") else {}
        if asked.get("deployment", self.view.deployment) != self.view.deployment:
            self._deployment = meta["deployment"] = str(asked["deployment"])
        self._add(Event(EventType.RUN_RESUMED, self._now_ms, meta=meta))
        for step_id, step in self.view.steps.items():
            if (step_id, step.attempt) in self._outstanding.steps or step_id in self._ended:
                continue
            if step.retry_timer is not None:
                self._drop_timers.append(step.retry_timer)
            self._messages.append(step_body(self.view.run_id, step_id, step.attempt))

    def _ended_by_cancel(self) -> bool:
        return any(event.type is EventType.CANCEL_REQUESTED for event in self.events)


def _author(message: Message) -> dict[str, str]:
    """Return who asked, for the log; nothing where nobody in particular did."""
    author = message.meta.get("by")
    return {"by": str(author)} if author else {}
