"""Deciding about a cron's ticks: one at a time, safely with others who decide at the same time.

Invariants:

1.  A tick is claimed in the cron's record by compare-and-set before its run is started, and settled
    there afterwards. So of several schedulers one decides whether a tick is started, skipped or
    given up, and no tick after it is decided about before that is known.
2.  A claim that was left behind (older than `CLAIM_MS`: whoever made it crashed, or is slow) is
    resolved first: the tick's run exists, so it was started; or it does not, so the tick is still
    to be decided about.
3.  A run's id follows from the cron's name and the tick, so a tick that is started twice after all
    (its claim was resolved while its owner was only slow) has one run.
4.  Whether a cron exists, and since when, is read from the app's record each time: a moved alias
    counts from the next decision on, whichever gateway moved it.
5.  Times are the store's. A tick is never started before its time.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from fluvial.crons import CronSpec
from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.planning import Plan, due_ms, next_due_ms, plan
from fluvial_gateway.crons.starting import CronRuns
from fluvial_gateway.crons.states import Changed, CronKey, CronStates, Known
from fluvial_queue.cron_records import CronEvent, CronOutcome, CronRecord, StartingTick
from fluvial_queue.records import AppRecord

CLAIM_MS: Final = 5000  # a start takes milliseconds; resolving a slow one's claim does no harm (3.)
_CLAIMED_MS: Final = 1000  # until a tick that somebody has just claimed is looked at again

_LOG = logging.getLogger(__name__)


class CronObserver(Protocol):
    """Hears what became of ticks. Every call is synchronous, cheap and never raises."""

    def cron_ticks(self, app: str, workflow: str, outcome: str, count: int) -> None:
        """So many ticks had this end."""
        ...

    def cron_started(self, late_seconds: float) -> None:
        """A tick's run was started so long after it was due."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """When a cron is to be looked at again."""

    next_ms: int | None = None  # None: not before something changes
    waits_for: str = ""  # a run: look again when it has ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A cron as the app's production deployment has it."""

    app: AppRecord
    spec: CronSpec
    since_ms: int


class CronDecisions:
    """Decides about ticks, one cron at a time."""

    def __init__(
        self,
        catalogue: Catalogue,
        states: CronStates,
        runs: CronRuns,
        observer: CronObserver,
        now_ms: Callable[[], Awaitable[int]],
    ) -> None:
        self._catalogue = catalogue
        self._states = states
        self._runs = runs
        self._observer = observer
        self._now_ms = now_ms

    async def decide(self, key: CronKey, *, waiting_since_ms: int | None = None) -> Decided:
        """Deal with the next tick of a cron that has come, if there is one.

        Args:
            key: which cron.
            waiting_since_ms: since when it waits for a run to end.

        Raises:
            FluvialError: the store did not answer; nothing is lost by asking again.
        """
        declared = await declared_cron(self._catalogue, key)
        if declared is None:
            return Decided()
        now_ms = await self._now_ms()
        known = await self._states.read(key)
        starting = known.record.starting
        if starting is not None:
            if 0 <= now_ms - starting.claimed_ms < CLAIM_MS:
                return Decided(next_ms=now_ms + _CLAIMED_MS)
            resolved = await self._resolve(key, declared.spec, known, starting, now_ms)
            if resolved is None:
                return Decided(next_ms=now_ms)
            known = resolved
        if known.record.is_paused:
            return Decided()
        return await self._decide(key, _Look(declared, known, now_ms, waiting_since_ms))

    async def _decide(self, key: CronKey, look: _Look) -> Decided:
        spec, made = look.spec, look.plan()
        running = ""
        if made.tick_ms is not None and spec.overlap != "allow":
            running = await self._runs.going_on(look.known.record.last_run, look.now_ms)
        known = await self._note(key, look, made, running)
        if known is None:
            return Decided(next_ms=look.now_ms)
        if known.record.starting is not None:
            return await self._start(key, look, known, known.record.starting.tick_ms)
        if running and spec.overlap in ("queue", "replace"):
            if spec.overlap == "replace" and look.waiting_since_ms is None:
                reason = f"replaced by the next tick of the cron {spec.name!r}"
                await self._runs.cancel(running, reason)
            return Decided(waits_for=running)
        return look.next_after(known.record.considered_ms)

    async def _note(self, key: CronKey, look: _Look, made: Plan, running: str) -> Known | None:
        """Write down what is decided before any of it is done; None: somebody else was faster."""
        before = look.known.record
        record = _without_missed(before, look, made)
        if made.tick_ms is not None and running and look.spec.overlap == "skip":
            record = _skipped(record, made.tick_ms, look.now_ms, running)
        elif made.tick_ms is not None and not running:
            run_id = self._runs.id_of(key.app, look.spec, made.tick_ms)
            claim = StartingTick(made.tick_ms, run_id, look.now_ms)
            record = replace(record, starting=claim)
        if record == before:
            return look.known
        written = await self._states.write(key, record, expect=look.known.version)
        if written is not None:
            self._tell(key, look.spec, Changed(before, record))
        return written

    async def _start(self, key: CronKey, look: _Look, known: Known, tick_ms: int) -> Decided:
        """Start a tick that is claimed."""
        spec = look.spec
        run_id = reason = ""
        outcome: CronOutcome = "started"
        try:
            started = await self._runs.start(look.declared.app, spec, tick_ms)
            run_id = started.run_id
        except FluvialError as error:
            if error.retryable:
                raise  # the claim stays, and is resolved when the store answers again
            outcome, reason = "refused", f"{error.code}: {error}"
        now_ms = await self._now_ms()
        event = CronEvent(
            tick_ms=tick_ms, outcome=outcome, at_ms=now_ms, run_id=run_id, reason=reason
        )
        changed = await self._states.change(
            key, lambda record: _settled(record, event), known=known
        )
        self._tell(key, spec, changed)
        if outcome == "started":
            self._observer.cron_started(max(0, now_ms - due_ms(spec, tick_ms)) / 1000)
        return look.next_after(changed.after.considered_ms)

    async def _resolve(
        self, key: CronKey, spec: CronSpec, known: Known, starting: StartingTick, now_ms: int
    ) -> Known | None:
        """Return what is known without a claim that was left behind; None: somebody was faster."""
        record = replace(known.record, starting=None)
        if await self._runs.exists(starting.run_id):
            event = CronEvent(
                tick_ms=starting.tick_ms,
                outcome="started",
                at_ms=now_ms,
                run_id=starting.run_id,
                reason="found after an interruption",
            )
            record = _settled(known.record, event)
        written = await self._states.write(key, record, expect=known.version)
        if written is not None:
            self._tell(key, spec, Changed(known.record, record))
        return written

    def _tell(self, key: CronKey, spec: CronSpec, changed: Changed) -> None:
        for outcome, count in changed.after.counts.items():
            fresh = count - changed.before.counts.get(outcome, 0)
            if fresh:
                self._observer.cron_ticks(key.app, spec.workflow, outcome, fresh)
                _LOG.info(
                    "cron ticks",
                    extra={"app": key.app, "cron": key.name, "outcome": outcome, "count": fresh},
                )


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a cron: what is declared, what is known, and the time."""

    declared: Declared
    known: Known
    now_ms: int
    waiting_since_ms: int | None

    @property
    def spec(self) -> CronSpec:
        return self.declared.spec

    def plan(self) -> Plan:
        return plan(
            self.spec,
            considered_ms=max(self.known.record.considered_ms, self.declared.since_ms),
            now_ms=self.now_ms,
            waiting_since_ms=self.waiting_since_ms,
        )

    def next_after(self, considered_ms: int) -> Decided:
        considered_ms = max(considered_ms, self.declared.since_ms)
        return Decided(next_ms=next_due_ms(self.spec, considered_ms))


async def declared_cron(catalogue: Catalogue, key: CronKey) -> Declared | None:
    """Return a cron as its app's production deployment has it; None: it has no such cron."""
    found = await catalogue.find_app(key.app)
    if found is None or found.app.production is None:
        return None
    since = {cron.name: cron.since_ms for cron in found.app.crons}
    if key.name not in since:
        return None
    deployment = await catalogue.deployment(found.app.production)
    for spec in deployment.functions.crons:
        if spec.name == key.name:
            return Declared(app=found.app, spec=spec, since_ms=since[key.name])
    return None


def _without_missed(record: CronRecord, look: _Look, made: Plan) -> CronRecord:
    if made.missed == 0:
        return record
    reason = f"nobody was there for it, and catch_up is {look.spec.catch_up!r}"
    if look.waiting_since_ms is not None:
        reason = "the last run went on, and a later tick waits in its place"
    event = CronEvent(
        tick_ms=made.last_missed_ms,
        outcome="missed",
        at_ms=look.now_ms,
        reason=reason,
        count=made.missed,
    )
    return replace(record.after(event), considered_ms=made.considered_ms)


def _skipped(record: CronRecord, tick_ms: int, now_ms: int, running: str) -> CronRecord:
    event = CronEvent(
        tick_ms=tick_ms, outcome="skipped", at_ms=now_ms, reason=f"{running} still goes on"
    )
    return replace(record.after(event), considered_ms=tick_ms)


def _settled(record: CronRecord, event: CronEvent) -> CronRecord:
    """Return the record once the run of a tick is started, or refused."""
    known = any(
        (seen.tick_ms, seen.outcome) == (event.tick_ms, event.outcome) for seen in record.recent
    )
    starting = record.starting
    if starting is not None and starting.tick_ms == event.tick_ms:
        starting = None
    settled = replace(
        record, starting=starting, considered_ms=max(record.considered_ms, event.tick_ms)
    )
    return settled if known else settled.after(event)
