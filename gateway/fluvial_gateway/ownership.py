"""One partition that this gateway owns: carries out what its sequencer decides.

Invariants:

1.  Everything that a loop turn makes ready goes to the store in one call (group commit).
2.  A commit whose outcome is unknown is repeated unchanged until its answer is definite; until then
    its run does nothing else (the sequencer has one commit of a run under way at most).
3.  Nothing is dispatched after the lease's end as counted from the moment its last renewal was
    *sent*, less a margin; jobs wait until it is renewed, or are dropped when it is lost.
4.  Every task belongs to the task group of the dispatcher; `close` ends them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from fluvial.errors import FluvialError
from fluvial.events import Event, EventType
from fluvial_gateway.activity import Activity
from fluvial_gateway.admission import Admission
from fluvial_gateway.flights import Flights
from fluvial_gateway.store_clock import boottime
from fluvial_gateway.surroundings import Surroundings
from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    OutcomeUnknownError,
    RunRecord,
    StoredMessage,
    StoreUnavailableError,
    message_order,
)
from fluvial_queue.effects import target_of
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message, decode_message
from fluvial_queue.sequencer import Sequencer
from fluvial_queue.views import RunView

WINDOW = 4096  # messages read at a time
TIMER_BATCH = 1000  # due timers moved in one script: about 4 ms of the store's time
READ_BATCH = 5000  # events read at a time
MAX_EFFECTS = 64  # of a partition under way at a time; each is a round trip to the store
PATIENCE_MS = 600_000  # with an effect for a run that does not exist: another starts it first
RETRY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # back-off towards a store that is away

logger = logging.getLogger(__name__)
_Result = TypeVar("_Result")

_STEP_OUTCOMES = {
    EventType.STEP_COMPLETED: "completed",
    EventType.STEP_FAILED: "failed",
    EventType.STEP_CANCELLED: "cancelled",
    EventType.STEP_ABANDONED: "abandoned",
}
_RUN_OUTCOMES = {
    EventType.RUN_COMPLETED: "completed",
    EventType.RUN_FAILED: "failed",
    EventType.RUN_CANCELLED: "cancelled",
    EventType.RUN_TERMINATED: "terminated",
    EventType.RUN_CONTINUED: "continued",
}


class Ownership:
    """The owner's side of one partition, for as long as its lease is held."""

    def __init__(self, lease: Lease, around: Surroundings, *, admission: Admission) -> None:
        self.lease = lease
        self.sequencer = Sequencer(lease, self)
        self.valid_until = 0.0  # boottime; set by the dispatcher at each renewal
        self._around = around
        self._flights = Flights(self.sequencer, self, around, admission)
        self._loop = asyncio.get_running_loop()
        self._group: list[CommitEntry] = []
        self._committing = 0  # calls to the store that are under way
        self._flush_is_due = False
        self._held: list[Job] = []  # dispatched while the lease was in doubt
        self._is_draining = False
        self._cursor = ""
        self._is_reading = False
        self._read_again = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms: int | None = None
        self._closed = False
        self._carrying = asyncio.Semaphore(MAX_EFFECTS)

    # ---- from the dispatcher ----

    def renewed(self, valid_until: float, next_timer_ms: int | None, newest_id: str) -> None:
        """The lease goes on; the store says what there is to do."""
        self.valid_until = valid_until
        self.expect_timer(next_timer_ms)
        if newest_id and newest_id != self._cursor:
            self.read()
        held, self._held = self._held, []
        for job in held:
            if not job.over:
                self._flights.submit(job)  # while it drains, this holds it again

    def read(self) -> None:
        """Read the messages that others have added."""
        if self._is_reading:
            self._read_again = True
        elif not self._has_ended():
            self._is_reading = True
            self._around.spawn(self._read())

    def close(self) -> None:
        """Stop being the owner: what is under way is cancelled, nothing further is committed."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._group.clear()
        self.sequencer.abandon()

    def hold(self) -> None:
        """Start no step any more; what is under way is brought to an end."""
        self._is_draining = True

    def _has_ended(self) -> bool:
        return self._closed

    @property
    def is_busy(self) -> bool:
        """Whether an invocation or a commit is under way."""
        return bool(self._flights.count or self._group or self._committing)

    @property
    def has_rested(self) -> bool:
        """Whether whatever was dispatched is over and committed."""
        return not self.is_busy and not self.sequencer.has_results()

    def activities(self, run_id: str) -> list[Activity]:
        """Return the invocations of a run that are asked for or under way."""
        held = set(self._held)
        return [
            replace(activity, state="held") if job in held else activity
            for job in self.sequencer.jobs_of(run_id)
            for activity in [self._flights.activity(job)]
        ]

    # ---- Port of the sequencer ----

    def now_ms(self) -> int:
        return self._around.clock.now_ms()

    def dispatch(self, job: Job) -> None:
        self._flights.submit(job)

    def may_start(self, job: Job) -> bool:
        """Say whether a job may be dispatched now; one that may not waits for the next renewal.

        While this drains, turns still run: the results of finished steps wait behind them.
        """
        if boottime() <= self.valid_until and not (self._is_draining and job.kind == "step"):
            return True
        self._held.append(job)
        return False

    def cancel(self, job: Job, reason: str) -> None:
        self._flights.cancel(job, reason)

    def load(self, run_id: str, *, again: bool) -> None:
        self._around.spawn(self._load(run_id, again))

    def claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        self._around.spawn(self._claim(view, tokens, job))

    def carry_out(self, view: RunView, message_id: str, effect: Message) -> None:
        self._around.spawn(self._carry_out(view, message_id, effect))

    def commit(self, entry: CommitEntry) -> None:
        self._group.append(entry)
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def recorded(self, view: RunView, event: Event) -> None:
        observer = self._around.observer
        kind = event.type
        if kind in _STEP_OUTCOMES:
            step = view.steps.get(event.id)
            name = step.name if step is not None else "unknown"
            observer.step_finished(view.app, name, _STEP_OUTCOMES[kind])
        elif kind in (EventType.STEP_RETRYING, EventType.ATTEMPT_LOST):
            observer.step_attempt(view.app, str(event.meta.get("reason", "error")))
        elif kind in _RUN_OUTCOMES:
            observer.run_finished(view.app, view.workflow, _RUN_OUTCOMES[kind])
        elif kind is EventType.RUN_PAUSED:
            observer.run_paused(view.app, str(event.meta.get("code", "")))
        self._around.wake(view.run_id)

    # ---- commits ----

    def _flush(self) -> None:
        self._flush_is_due = False
        group, self._group = self._group, []
        if group and not self._has_ended():
            self._committing += 1
            self._around.spawn(self._commit(group))

    async def _commit(self, group: list[CommitEntry]) -> None:
        began = time.perf_counter()
        try:
            reply = await self._until_definite(
                "commit", lambda: self._around.store.commit(self.lease, group)
            )
        except FluvialError as error:
            await self._commit_singly(group, error)
            return
        finally:
            self._committing -= 1
            self._around.progressed()
        if reply is None:
            return
        self._around.clock.synchronise(reply.now_ms)
        answered = time.perf_counter()
        timers = [delay for entry in group for delay, _ in entry.timers]
        if timers:
            self.expect_timer(reply.now_ms + min(timers))
        for answer in reply.answers:
            self._around.observer.commit(answer.outcome.value, answered - began)
        if any(answer.outcome is CommitOutcome.EPOCH for answer in reply.answers):
            self._around.lose(self.lease)
            return
        for entry, answer in zip(group, reply.answers, strict=True):
            self._committed(entry, answer)
        self._around.observer.handoff(time.perf_counter() - answered)

    async def _commit_singly(self, group: list[CommitEntry], error: FluvialError) -> None:
        """The store will never take this group: find the run at fault, and spare the others."""
        if len(group) == 1:
            extra = {"run": group[0].run_id, "reason": str(error)}
            logger.error("a commit is refused for good: its run stands still", extra=extra)
            return
        for entry in group:
            self._committing += 1
            await self._commit([entry])

    def _committed(self, entry: CommitEntry, answer: CommitAnswer) -> None:
        try:
            self.sequencer.committed(entry, answer)
        except Exception:  # one run's failure must not keep the others' answers from them
            logger.exception("a commit was not taken in", extra={"run": entry.run_id})

    async def _until_definite(
        self, what: str, operation: Callable[[], Awaitable[_Result]]
    ) -> _Result | None:
        """Repeat a store operation, unchanged, until it is answered; None: not the owner now."""
        tries = 0
        while not self._has_ended():
            try:
                result = await operation()
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                logger.warning("store operation repeated", extra={"what": what, "why": str(error)})
                await asyncio.sleep(RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)])
                tries += 1
            else:
                return None if self._has_ended() else result
        return None

    # ---- reading ----

    async def _read(self) -> None:
        try:
            while not self._has_ended():
                self._read_again = False
                messages = await self._around.store.window(
                    self.lease, after=self._cursor, limit=WINDOW
                )
                if messages is None:
                    self._around.lose(self.lease)
                    return
                self._offer(messages)
                if len(messages) < WINDOW and not self._read_again:
                    return
        except (OutcomeUnknownError, StoreUnavailableError) as error:
            logger.warning("window not read", extra={"error": str(error)})  # the next pulse reads
        finally:
            self._is_reading = False

    def _offer(self, messages: Sequence[StoredMessage]) -> None:
        if self._has_ended():
            return
        for stored in messages:
            self.sequencer.offer(stored)
        if messages:
            self._cursor = messages[-1].id

    async def _load(self, run_id: str, again: bool) -> None:
        loaded = await self._until_definite("load", lambda: self._read_run(run_id, again))
        if loaded is not None:
            record, events, stored = loaded
            self.sequencer.loaded(run_id, record, events, stored)

    async def _read_run(
        self, run_id: str, again: bool
    ) -> tuple[RunRecord | None, list[bytes], list[StoredMessage] | None]:
        stored = await self._messages_of(run_id) if again else None
        record = await self._around.store.read_run(run_id)
        events = await self._read_log(run_id, record.events) if record is not None else []
        return record, events, stored

    async def _messages_of(self, run_id: str) -> list[StoredMessage]:
        """Return the run's messages that exist, from a walk over the whole partition."""
        found: list[StoredMessage] = []
        after = ""
        while True:
            messages = await self._around.store.window(self.lease, after=after, limit=WINDOW)
            if messages is None:
                self._around.lose(self.lease)
                return found
            found += [stored for stored in messages if _is_of(stored, run_id)]
            if len(messages) < WINDOW:
                return found
            after = messages[-1].id

    async def read_log(self, run_id: str, length: int) -> list[bytes] | None:
        """Return the first `length` events of a run's log; None: not the owner now."""
        return await self._until_definite("read log", lambda: self._read_log(run_id, length))

    async def _read_log(self, run_id: str, length: int) -> list[bytes]:
        events: list[bytes] = []
        while len(events) < length:
            limit = min(READ_BATCH, length - len(events))
            batch = await self._around.store.read_events(run_id, start=len(events), limit=limit)
            if not batch:
                break
            events += batch
        return events

    async def _claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        conflicts: dict[str, str] = {}
        for token in tokens:
            claim = partial(self._around.store.claim_token, view.app, token, view.run_id)
            holder = await self._until_definite("claim", claim)
            if holder is None:
                return
            if holder != view.run_id:
                conflicts[token] = holder
        self.sequencer.claimed(job, conflicts)

    async def _carry_out(self, view: RunView, message_id: str, effect: Message) -> None:
        problem: str | None
        try:
            async with self._carrying:
                problem = await self._until_definite(
                    "effect",
                    lambda: carry_out(self._around.store, view.app, effect, self.now_ms()),
                )
        except TooEarlyError:
            if self.now_ms() - message_order(message_id)[0] < PATIENCE_MS:
                await asyncio.sleep(RETRY_SECONDS[2])  # meanwhile the window is read
                self.sequencer.too_early(view.run_id, message_id)
                return
            problem = "the run does not exist"
        except FluvialError as error:  # the store will never take it
            problem = str(error)
        if problem is None:
            return
        if problem:
            extra = {"run": view.run_id, "target": target_of(effect), "reason": problem}
            logger.warning("an effect cannot be carried out", extra=extra)
        self.sequencer.carried_out(view.run_id, message_id, problem)

    # ---- timers ----

    def expect_timer(self, due_ms: int | None) -> None:
        """Look at the partition's timers no later than then; None: there are none."""
        if due_ms is None or (self._timer_due_ms is not None and due_ms >= self._timer_due_ms):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_ms = due_ms
        delay = max(0.0, (due_ms - self.now_ms()) / 1000)
        # Far timers are looked at again with every renewal, so an hour ahead is enough.
        self._timer = self._loop.call_later(min(delay, 3600.0), self._timer_is_due)

    def _timer_is_due(self) -> None:
        self._timer = None
        self._timer_due_ms = None
        self._around.spawn(self._fire())

    async def _fire(self) -> None:
        try:
            while not self._has_ended():
                fired = await self._around.store.fire_timers(self.lease, limit=TIMER_BATCH)
                if fired is None:
                    self._around.lose(self.lease)
                    return
                self._around.clock.synchronise(fired.now_ms)
                for stored in fired.messages:
                    if not self._has_ended():
                        self.sequencer.offer(stored)
                if len(fired.messages) < TIMER_BATCH:
                    self.expect_timer(fired.next_timer_ms)
                    return
        except (OutcomeUnknownError, StoreUnavailableError) as error:
            logger.warning("timers not fired", extra={"error": str(error)})
            self.expect_timer(self.now_ms() + 1000)


def _is_of(stored: StoredMessage, run_id: str) -> bool:
    return decode_message(stored.body).run_id == run_id
