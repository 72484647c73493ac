"""What a workflow asks for, in an entry: its events, and the messages, timers, hooks and effects
that belong to them."""

from __future__ import annotations

from fluvial.events import TERMINAL, Event, EventType
from fluvial_queue.contract import RunStatus
from fluvial_queue.drafts import DEADLINE_GRACE_MS, Draft
from fluvial_queue.effects import start_child, start_next
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.ready import ReadyTurn
from fluvial_queue.views import ChildView, step_body, timer_body

_END_STATUS = {
    EventType.RUN_COMPLETED: RunStatus.COMPLETED,
    EventType.RUN_FAILED: RunStatus.FAILED,
    EventType.RUN_CANCELLED: RunStatus.CANCELLED,
    EventType.RUN_TERMINATED: RunStatus.TERMINATED,
    EventType.RUN_CONTINUED: RunStatus.CONTINUED,
}


class OutputDraft(Draft):
    """A draft that takes turns."""

    def add_turn(self, turn: ReadyTurn) -> None:
        """Take in a turn's outputs, if the log is still the one that it saw."""
        if turn.job.base != self.view.length or self.events:
            return
        self._handled[turn.job.message_id] = None
        self._add_outputs(turn, turn.job.inputs)

    def _add_outputs(self, turn: ReadyTurn, consumed: int) -> None:
        self.turn = turn
        self.consumed = consumed
        for event, encoded in zip(turn.events, turn.encoded, strict=True):
            if event.type is EventType.HOOK_OPENED and event.meta["token"] in turn.conflicts:
                token = event.meta["token"]
                self._add(event, encoded)
                meta = {"token": token, "run": turn.conflicts[token]}
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
                self._open_hooks[event.meta["token"]] = OpenHook(event.id, self._last_position)
            case EventType.HOOK_CLOSED:
                self._close_hook(event.meta["token"])
            case EventType.CHILD_SCHEDULED:
                self._start_child(event)
            case EventType.CHILD_CANCELLED:
                self._give_child_up(event.id)
            case EventType.STATE_PUBLISHED:
                self._state_at = self._last_position
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

    def _cancel_timer(self, timer_id: int) -> None:
        self._ended.add(timer_id)
        self._drop_timer(timer_id)

    def _close_hook(self, token: str) -> None:
        if self._open_hooks.pop(token, None) is None:
            self._close_hooks[token] = None

    def _start_child(self, event: Event) -> None:
        meta = event.meta
        self._effects.append(start_child(self.view, event))
        if meta["policy"] != "detach":
            self._children[event.id] = ChildView(meta["run"], meta["workflow"], meta["policy"])

    def _give_child_up(self, child_id: int) -> None:
        child = self._child(child_id)
        self._ended.add(child_id)
        if child is not None:
            self._close(child_id, child)
