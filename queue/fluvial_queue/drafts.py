"""Drafts of commit entries: what everything that goes into one has in common.

A draft begins on a run's view and takes items in order; each sees what the items before it did. It
never changes the view: the sequencer applies the draft's events once the commit is acknowledged.
What the items are, and what they mean, is said by the classes built on this one:

    Draft          what an entry is made of, and the end of a run
    OutputDraft    what a workflow asks for (`outputs`)
    PausableDraft  pauses and resumes (`pausing`)
    InputDraft     messages that become inputs, cancels, terminates (`inputs`)
    EntryDraft     results of steps, lost executions, wake-ups (`entries`)
"""

from __future__ import annotations

from collections.abc import Mapping

from fluvial.events import INPUTS, Event, EventType
from fluvial_queue.contract import CommitEntry, RunStatus
from fluvial_queue.effects import close_child, tell_parent
from fluvial_queue.hook_contract import OpenHook
from fluvial_queue.messages import Message
from fluvial_queue.outstanding import Outstanding
from fluvial_queue.ready import ReadyResult, ReadyTurn
from fluvial_queue.step_views import StepView
from fluvial_queue.views import ChildView, RunView, merged_tags, pack_turn, timer_body

DEADLINE_GRACE_MS = 1_000  # for the instance, which judges a late attempt better than the owner


class Draft:
    """One commit entry in the making.

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
        self._open_hooks: dict[str, OpenHook] = {}
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

    # ---- what items do ----

    def _add(self, event: Event, encoded: bytes | None = None) -> None:
        self.events.append(event)
        self._encoded.append(event.encode() if encoded is None else encoded)
        if event.type in INPUTS:
            self._inputs += 1

    @property
    def _last_position(self) -> int:
        """Where the log has the event that was added last."""
        return self.view.length + len(self.events) - 1

    def _has_not_begun(self) -> bool:
        return self.view.length == 0 and not self.events

    def _drop_timer(self, timer_id: int) -> None:
        body = timer_body(self.view.run_id, timer_id)
        self._timers = [timer for timer in self._timers if timer[1] != body]
        self._drop_timers.append(body)

    def _withdraw_step(self, step_id: int, step: StepView) -> None:
        self._ended.add(step_id)
        message_id = self._outstanding.steps.get((step_id, step.attempt))
        if message_id is not None:
            self._handled[message_id] = None
        if step.retry_timer is not None:
            self._drop_timers.append(step.retry_timer)
        if step.expires_ms:
            self._drop_timer(step_id)

    def _fail_step(self, step_id: int, step: StepView, reason: str, *, cause: str = "") -> Event:
        """Return the end of a step that no instance has judged."""
        self._withdraw_step(step_id, step)
        meta = {"attempt": step.attempt, "reason": reason}
        if cause:
            meta["cause"] = cause
        return Event(EventType.STEP_FAILED, self._now_ms, step_id, meta=meta)

    def _child(self, child_id: int) -> ChildView | None:
        """Return a child that has not ended, as of this entry."""
        if child_id in self._ended:
            return None
        return self._children.get(child_id) or self.view.children.get(child_id)

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


def author_of(message: Message) -> dict[str, str]:
    """Return who asked, for the log; nothing where nobody in particular did."""
    author = message.meta.get("by")
    return {"by": str(author)} if author else {}
