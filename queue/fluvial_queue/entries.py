"""Entries: what became of steps and of lost executions, and the wake-ups that are needed then."""

from __future__ import annotations

from fluvial.events import Event, EventType
from fluvial_queue.contract import Lease
from fluvial_queue.crashes import crash_end
from fluvial_queue.inputs import InputDraft
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message
from fluvial_queue.pausing import EXHAUSTED, POISON
from fluvial_queue.ready import ReadyResult
from fluvial_queue.step_views import StepView
from fluvial_queue.views import step_body, turn_body


class EntryDraft(InputDraft):
    """One commit entry in the making; things are added in the order they shall have in the log."""

    def add_result(self, result: ReadyResult) -> None:
        """Take in what became of a step, or of an invocation that was cut off."""
        if result.message_id not in self._outstanding.all or result.message_id in self._handled:
            return
        self.results.append(result)
        if result.pause:
            code = result.pause.partition(":")[0]
            self.pause(result.message_id, result.pause, code=code)
        elif result.lost:
            self._add_lost(result)
        elif result.end is not None:
            self._add_end(result, result.end)

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
            text = f"step {step.name} was cut off {limit} times: {reason}"
            self.pause(message_id, text, code=POISON)
        else:
            self._messages.append(step_body(self.view.run_id, message.id, step.attempt))

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
            self.pause(result.message_id, text, code=EXHAUSTED)
            return
        body = step_body(self.view.run_id, end.id, attempt + 1)
        delay_ms = end.meta["delay_ms"]
        if delay_ms:
            self._timers.append((delay_ms, body))
        else:
            self._messages.append(body)

    def _add_crash(self, result: ReadyResult) -> None:
        step_id = result.job.step_id
        step = self.view.steps.get(step_id)
        self._handled[result.message_id] = None
        if step is None or step_id in self._ended:
            return
        end = crash_end(result.job, step, result.lost, self._now_ms)
        self._add(end)
        if end.type is EventType.STEP_FAILED:
            self._withdraw_step(step_id, step)
        else:
            self._ended.add(step_id)
            self._retry(result, step, end)

    def _add_lost(self, result: ReadyResult) -> None:
        job = result.job
        if job.has_crashed:
            self._add_crash(result)
            return
        if job.kind == "step":
            message = self._outstanding.all[result.message_id]
            self.lose_step(result.message_id, message, result.lost, job.lost_limit, job)
            return
        lost = self.view.turns_lost + 1
        self._handled[result.message_id] = None
        meta = {"attempt": lost, "reason": result.lost}
        self._add(Event(EventType.TURN_LOST, self._now_ms, meta=meta))
        if lost >= job.lost_limit:
            text = f"turns were cut off {lost} times: {result.lost}"
            self.pause(result.message_id, text, code=POISON)
