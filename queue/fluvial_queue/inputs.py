"""Messages to a run, in an entry: inputs of its workflow, and what ends, forks or hurries it."""

from __future__ import annotations

from fluvial.events import Event, EventType
from fluvial_queue.contract import RunStatus
from fluvial_queue.drafts import DEADLINE_GRACE_MS, author_of
from fluvial_queue.messages import Message, MessageKind, start_body
from fluvial_queue.pausing import PausableDraft
from fluvial_queue.views import cancel_deadline_body, step_body, timer_body

_BEFORE_THE_BEGINNING = frozenset({MessageKind.START, MessageKind.WAKE})


class InputDraft(PausableDraft):
    """A draft that takes messages."""

    def add_inputs(self) -> None:
        """Take in the messages that become input events, and those that change how it goes on."""
        for message_id, message in self._outstanding.inputs.items():
            if message_id in self._handled:
                continue
            if message.kind in (MessageKind.CANCEL, MessageKind.TERMINATE, MessageKind.PAUSE):
                continue
            if self._has_not_begun() and message.kind not in _BEFORE_THE_BEGINNING:
                continue  # RUN_STARTED is the first event of every log
            if message.kind is MessageKind.TIMER and self.results and message.id in self.view.steps:
                continue  # a step's deadline: this entry may have changed the step
            if message.kind is MessageKind.RESUME:
                if not self._paused or self._must_stay_paused():
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
                meta = {"tags": change, **author_of(message)}
                self._set_tags(change)
                self._add(Event(EventType.TAGS_CHANGED, self._now_ms, meta=meta))
            elif (event := self._input(message)) is not None:
                self._add(event)

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
            meta = {"reason": str(message.meta.get("reason", "")), **author_of(message)}
            self._add(Event(EventType.CANCEL_REQUESTED, self._now_ms, meta=meta))
            self._timers.append((grace_ms, cancel_deadline_body(self.view.run_id)))
            if self._paused:
                self._resume(None)

    def terminate(self, message: Message) -> None:
        """End the run at once: abandoned steps are named, everything else is deleted."""
        for step_id, step in self.view.steps.items():
            meta = {"attempt": step.attempt}
            self._add(Event(EventType.STEP_ABANDONED, self._now_ms, step_id, meta=meta))
        meta_end = {"reason": str(message.meta.get("reason", "")), **author_of(message)}
        self._add(Event(EventType.RUN_TERMINATED, self._now_ms, meta=meta_end))
        self._end(RunStatus.TERMINATED)

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

    def _input(self, message: Message) -> Event | None:
        """Return the input event that a message asks for; None if it is moot."""
        view = self.view
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
            return self._payload(message)
        return None

    def _payload(self, message: Message) -> Event:
        """Record a payload. It was accepted, so that is done also where its hook was closed since:
        nobody waits for it then, but who asked is told."""
        meta = message.meta
        about = {"token": meta["token"], "resume": meta.get("resume", "")}
        if meta.get("ask"):
            about["ask"] = True
        return Event(EventType.HOOK_RECEIVED, self._now_ms, message.id, message.payload, about)

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
        """Let sleeps end now: the one that the message names, or all; a timeout is no sleep. A run
        that waits for its time to begin does so: of two requests for that, the second is moot."""
        if self._has_not_begun():
            self._drop_timers.append(start_body(self.view.run_id))
            self._messages.append(start_body(self.view.run_id))
        for timer_id, timer in self.view.timers.items():
            is_meant = message.id == timer_id or (message.id == 0 and timer.is_sleep)
            if is_meant and timer_id not in self._ended:
                self._ended.add(timer_id)
                self._drop_timers.append(timer_body(self.view.run_id, timer_id))
                meta = {"early": True, **author_of(message)}
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
        by = view.meta.get("by", "")
        meta = {"origin": view.meta["origin"], "events": view.length, **({"by": by} if by else {})}
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
        self._state_at = view.state_at

    def _ended_by_cancel(self) -> bool:
        return any(event.type is EventType.CANCEL_REQUESTED for event in self.events)
