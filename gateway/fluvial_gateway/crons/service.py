"""Crons, for people: what they are, when they come, what became of them; pause, resume, trigger."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from fluvial.crons import CronSpec
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.deciding import CronObserver, Declared, declared_cron
from fluvial_gateway.crons.planning import due_ms, schedule_of
from fluvial_gateway.crons.starting import CronRuns
from fluvial_gateway.crons.states import CronKey, CronStates
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Started, definite
from fluvial_queue.cron_records import CronEvent, CronRecord
from fluvial_queue.records import AppRecord

MAX_TICKS: Final = 100  # in one preview

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronState:
    """A cron with what is known of it."""

    app: str
    deployment: str
    spec: CronSpec
    since_ms: int
    record: CronRecord
    next_tick_ms: int | None  # None: it is paused, or has none any more


class Crons:
    """The active crons of all apps: those of their production deployments."""

    def __init__(
        self,
        catalogue: Catalogue,
        states: CronStates,
        runs: CronRuns,
        observer: CronObserver,
        *,
        now_ms: Callable[[], Awaitable[int]],
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when a cron was resumed."""
        self._catalogue = catalogue
        self._states = states
        self._runs = runs
        self._observer = observer
        self._now_ms = now_ms
        self._changed = changed

    async def active(self, app: str | None = None) -> list[CronState]:
        """Return crons by app and name.

        Raises:
            ProblemError: there is no such app.
        """
        apps = await self._catalogue.apps() if app is None else [await self._catalogue.app(app)]
        known = await self._states.read_all()
        now_ms = await self._now_ms()
        found: list[CronState] = []
        for record in apps:
            for declared in await self._declared_in(record):
                state = known.get(CronKey(record.app, declared.spec.name), CronRecord())
                found.append(_state(declared, state, now_ms))
        return found

    async def get(self, key: CronKey) -> CronState:
        """Raises:
        ProblemError: the app's production deployment has no such cron.
        """
        declared = await self._declared(key)
        known = await self._states.read(key)
        return _state(declared, known.record, await self._now_ms())

    async def ticks(self, key: CronKey, count: int) -> list[int]:
        """Return when the next ticks are due, whether the cron is paused or not."""
        spec = (await self._declared(key)).spec
        schedule = schedule_of(spec.schedule, spec.timezone)
        ticks = schedule.ticks(await self._now_ms())
        return [due_ms(spec, tick) for tick in islice(ticks, min(count, MAX_TICKS))]

    async def pause(self, key: CronKey) -> CronState:
        """Let no tick start anything until the cron is resumed; runs under way go on."""
        declared = await self._declared(key)
        changed = await self._states.change(key, lambda record: replace(record, is_paused=True))
        return _state(declared, changed.after, await self._now_ms())

    async def resume(self, key: CronKey) -> CronState:
        """Go on with the next tick; those of the pause are nobody's."""
        declared = await self._declared(key)
        now_ms = await self._now_ms()

        def resumed(record: CronRecord) -> CronRecord:
            if not record.is_paused:
                return record
            considered_ms = max(record.considered_ms, now_ms)
            return replace(record, is_paused=False, considered_ms=considered_ms)

        changed = await self._states.change(key, resumed)
        self._changed()
        return _state(declared, changed.after, now_ms)

    async def trigger(self, key: CronKey, *, idempotency_key: str = "") -> Started:
        """Start a run now, whatever the schedule, a pause and the last run say; the next tick sees
        it as the cron's last run. With a key, equal triggers are one run."""
        declared = await self._declared(key)
        now_ms = await self._now_ms()
        spec = declared.spec
        started = await self._runs.trigger(declared.app, spec, now_ms, idempotency_key)
        if started.outcome == "accepted":
            event = CronEvent(
                tick_ms=now_ms, outcome="triggered", at_ms=now_ms, run_id=started.run_id
            )
            await definite(lambda: self._states.change(key, lambda record: _with(record, event)))
            self._observer.cron_ticks(key.app, spec.workflow, "triggered", 1)
            _LOG.info("cron triggered", extra={"app": key.app, "cron": key.name})
        return started

    async def _declared(self, key: CronKey) -> Declared:
        app = await self._catalogue.app(key.app)
        declared = await declared_cron(self._catalogue, key)
        if declared is None:
            names = ", ".join(sorted(cron.name for cron in app.crons)) or "none"
            raise ProblemError(
                "cron_not_found",
                f"{key.app!r} has no cron {key.name!r} in production; it has: {names}",
            )
        return declared

    async def _declared_in(self, app: AppRecord) -> list[Declared]:
        if app.production is None or not app.crons:
            return []
        since = {cron.name: cron.since_ms for cron in app.crons}
        deployment = await self._catalogue.deployment(app.production)
        return [
            Declared(app=app, spec=spec, since_ms=since[spec.name])
            for spec in deployment.functions.crons
            if spec.name in since
        ]


def _with(record: CronRecord, event: CronEvent) -> CronRecord:
    """Return the record after an event, which it may hold already: an answer may have been lost."""
    return record if event in record.recent else record.after(event)


def _state(declared: Declared, record: CronRecord, now_ms: int) -> CronState:
    spec = declared.spec
    considered_ms = max(record.considered_ms, declared.since_ms, now_ms)
    tick = schedule_of(spec.schedule, spec.timezone).after(considered_ms)
    return CronState(
        app=declared.app.app,
        deployment=declared.app.production or "",
        spec=spec,
        since_ms=declared.since_ms,
        record=record,
        next_tick_ms=None if record.is_paused or tick is None else due_ms(spec, tick),
    )
