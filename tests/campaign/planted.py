"""Planted bugs: each breaks a rule of the hand-off, and the campaign must notice."""

# Bugs are planted in the inner parts, too.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from fluvial.events import Event, EventType
from fluvial.invocations import Answer, TurnRequest
from fluvial.scope import RunScope
from fluvial.turns import LiveRuns
from fluvial_queue import carrying
from fluvial_queue.contract import CommitEntry, RunStatus
from fluvial_queue.entries import EntryDraft
from fluvial_queue.jobs import Job
from fluvial_queue.kit import owner
from fluvial_queue.memory import state, store
from fluvial_queue.memory.state import Partition, Run
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.outstanding import Outstanding
from fluvial_queue.ready import ReadyResult
from fluvial_queue.sequencer import Sequencer
from fluvial_queue.views import RunView

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class Planted:
    """One bug and how it is planted."""

    name: str
    plant: Callable[[Patch], None]


def _always(*_: object) -> bool:
    return True


def _never(*_: object) -> bool:
    return False


def _stale_commits(patch: Patch) -> None:
    patch.setattr(Partition, "is_current", _always)


def _answer_onto_another_log(patch: Patch) -> None:
    real = Sequencer.answered

    def answered(self: Sequencer, job: Job, *rest: Any) -> None:
        job.base = job.view.length
        real(self, job, *rest)

    patch.setattr(Sequencer, "answered", answered)


def _any_coroutine(patch: Patch) -> None:
    real = LiveRuns.turn

    def turn(self: LiveRuns, request: TurnRequest) -> Answer:
        live = self._live.get(request.run_id)
        if live is not None and request.turn_id is not None:
            live.turn_id = request.turn_id
        return real(self, request)

    patch.setattr(LiveRuns, "turn", turn)


def _no_wake_up(patch: Patch) -> None:
    real = EntryDraft.settle_wake_ups

    def settle(self: EntryDraft) -> None:
        if self.view.consumed != 1:
            real(self)

    patch.setattr(EntryDraft, "settle_wake_ups", settle)


def _lost_event(patch: Patch) -> None:
    real = state.apply_entry

    def apply(partition: Partition, run: Run, entry: CommitEntry, *rest: Any) -> tuple[str, ...]:
        ids = real(partition, run, entry, *rest)
        if len(entry.events) == 2 and not run.status.is_terminal:
            del run.log[-1]
        return ids

    patch.setattr(store, "apply_entry", apply)


def _result_twice(patch: Patch) -> None:
    real = EntryDraft._add_end

    def add_end(self: EntryDraft, result: ReadyResult, end: Event) -> None:
        real(self, result, end)
        if end.type is EventType.STEP_COMPLETED and end in self.events and self.turn is None:
            self._add(end)

    patch.setattr(EntryDraft, "_add_end", add_end)


def _lost_payload(patch: Patch) -> None:
    real = EntryDraft._input
    count = iter(range(1_000_000))

    def take(self: EntryDraft, message: Message) -> Event | None:
        is_lost = message.kind is MessageKind.HOOK and next(count) % 2
        return None if is_lost else real(self, message)

    patch.setattr(EntryDraft, "_input", take)


def _early_timer(patch: Patch) -> None:
    real = state.apply_entry

    def apply(partition: Partition, run: Run, entry: CommitEntry, *rest: Any) -> tuple[str, ...]:
        timers = tuple((delay_ms // 2, body) for delay_ms, body in entry.timers)
        return real(partition, run, replace(entry, timers=timers), *rest)

    patch.setattr(store, "apply_entry", apply)


def _no_record_of_another_owner(patch: Patch) -> None:
    patch.setattr(Outstanding, "may_have_started", _never)


def _steps_forgotten_by_a_resume(patch: Patch) -> None:
    real = EntryDraft._resume

    def resume(self: EntryDraft, *rest: Any) -> None:
        real(self, *rest)
        self._messages.clear()

    patch.setattr(EntryDraft, "_resume", resume)


def _loss_not_noticed(patch: Patch) -> None:
    real = Sequencer.lost

    def lost(self: Sequencer, job: Job, reason: str) -> None:
        if reason != "link_lost":
            real(self, job, reason)

    patch.setattr(Sequencer, "lost", lost)


def _conflict_ignored(patch: Patch) -> None:
    real = Sequencer.claimed

    def claimed(self: Sequencer, job: Job, conflicts: Mapping[str, str]) -> None:
        real(self, job, {})

    patch.setattr(Sequencer, "claimed", claimed)


def _real_chance(patch: Patch) -> None:
    seeds = itertools.count()
    patch.setattr(RunScope, "random", property(lambda _: random.Random(next(seeds))))


def _child_not_told_of(patch: Patch) -> None:
    real = carrying.carry_out

    async def carry_out(target: Any, app: str, effect: Message, now_ms: int) -> str:
        return "" if effect.meta["do"] == "tell" else await real(target, app, effect, now_ms)

    patch.setattr(owner, "carry_out", carry_out)


def _paused_run_goes_on(patch: Patch) -> None:
    real = RunView.apply

    def apply(self: RunView, encoded: bytes, event: Event) -> None:
        real(self, encoded, event)
        if event.type is EventType.RUN_PAUSED:
            self.status = RunStatus.RUNNING

    patch.setattr(RunView, "apply", apply)


PLANTED: Final = (
    Planted("a stale owner's commit is applied", _stale_commits),
    Planted("an answer is committed onto a log that has moved", _answer_onto_another_log),
    Planted("any coroutine of the run goes on", _any_coroutine),
    Planted("a wake-up is forgotten", _no_wake_up),
    Planted("an event is lost", _lost_event),
    Planted("a result is recorded twice", _result_twice),
    Planted("a payload is lost", _lost_payload),
    Planted("a timer is early", _early_timer),
    Planted("a step starts again without a record", _no_record_of_another_owner),
    Planted("a resume forgets the steps", _steps_forgotten_by_a_resume),
    Planted("a lost answer is not noticed", _loss_not_noticed),
    Planted("two runs hold one token", _conflict_ignored),
    Planted("chance is not the run's", _real_chance),
    Planted("a child's end is not told", _child_not_told_of),
    Planted("a paused run goes on", _paused_run_goes_on),
)
