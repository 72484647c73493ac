"""The scheduler: looks at each cron when its next tick is due.

One gateway schedules the crons of all apps: the one that owns partition `PARTITION`. That there is
only one is thrift, not a promise: who decides about a tick is settled in the store (`deciding`).

The scheduler sleeps until the next tick of any cron is due. It is woken by what happens in this
gateway (an alias has moved, a cron was resumed, the run that a cron waits for has ended, the
partition was acquired); what happened in another one it sees in its sweep.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from fluvial.errors import FluvialError
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.alarm import Alarm
from fluvial_gateway.crons.deciding import CronDecisions
from fluvial_gateway.crons.states import CronKey
from fluvial_gateway.owned_tasks import OwnedTasks
from fluvial_queue.records import ActiveCron

PARTITION: Final = 0
SWEEP_MS: Final = 60_000  # how late a change made by another gateway is seen
RETRY_MS: Final = 5000  # until a store that did not answer is asked again
WAIT_SECONDS: Final = 300.0  # for a run's end at a time, then it is looked at anew
CONCURRENT: Final = 64  # crons that are decided about at once: a few round trips each

_LOG = logging.getLogger(__name__)


class RunEnds(Protocol):
    """Tells when a run has ended; the dispatcher does."""

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Return when the run has ended or is gone, or the time is up."""
        ...


@dataclass(slots=True)
class _Entry:
    """What the scheduler remembers of one cron."""

    deployment: str
    active: ActiveCron
    due_ms: int | None = None  # None: it waits for something else than time
    waiting_since_ms: int | None = None


class CronScheduler:
    """Starts the runs of all apps' crons, while `is_owner` says that it is this gateway's turn."""

    def __init__(
        self,
        catalogue: Catalogue,
        decisions: CronDecisions,
        ends: RunEnds,
        *,
        is_owner: Callable[[], bool],
        now_ms: Callable[[], Awaitable[int]],
        alarm: Alarm,
    ) -> None:
        self._catalogue = catalogue
        self._decisions = decisions
        self._ends = ends
        self._is_owner = is_owner
        self._now_ms = now_ms
        self._alarm = alarm
        self._entries: dict[CronKey, _Entry] = {}
        self._heap: list[tuple[int, str, str]] = []  # due, app, name; stale where an entry differs
        self._waits = OwnedTasks()
        self._sweep_at_ms = 0
        self._is_closed = False

    def wake(self) -> None:
        """Something has changed: look at which crons there are."""
        self._sweep_at_ms = 0
        self._alarm.wake()

    async def run(self) -> None:
        """Schedule until closed."""
        while not self._is_closed:
            if self._is_owner():
                seconds = await self._round()
            else:
                self._forget()
                seconds = SWEEP_MS / 1000
            await self._alarm.wait(seconds)

    async def close(self) -> None:
        """Decide about nothing any more. What was begun is completed by whoever comes next."""
        self._is_closed = True
        self._alarm.wake()
        await self._waits.close()

    def _forget(self) -> None:
        """Know nothing: whoever schedules now may change everything."""
        self._entries.clear()
        self._heap.clear()
        self._sweep_at_ms = 0

    async def _round(self) -> float:
        """Do what is due; return the seconds until something is."""
        try:
            now_ms = await self._now_ms()
            if now_ms >= self._sweep_at_ms:
                self._sweep_at_ms = now_ms + SWEEP_MS  # first: a wake meanwhile asks for another
                await self._sweep(now_ms)
            while due := self._due(now_ms):
                await asyncio.gather(*(self._look(key, now_ms) for key in due))
                now_ms = await self._now_ms()
                if self._is_closed:
                    break
        except FluvialError as error:
            _LOG.warning("crons not looked at", extra={"error": str(error)})
            self._sweep_at_ms = 0
            return RETRY_MS / 1000
        next_ms = min([self._sweep_at_ms, *(due for due, _, _ in self._heap[:1])])
        return max(0, next_ms - now_ms) / 1000

    async def _sweep(self, now_ms: int) -> None:
        """Learn which crons there are; look at the new, the changed and the paused ones."""
        found = {
            CronKey(app.app, cron.name): (app.production or "", cron)
            for app in await self._catalogue.apps()
            for cron in app.crons
        }
        for key in self._entries.keys() - found.keys():
            del self._entries[key]
        for key, (deployment, cron) in found.items():
            entry = self._entries.get(key)
            if entry is None or entry.active != cron:
                entry = self._entries[key] = _Entry(deployment, cron)
            is_new = entry.due_ms is None or entry.deployment != deployment
            entry.deployment = deployment
            if is_new and entry.waiting_since_ms is None:
                entry.due_ms = now_ms
        # Made anew, so that what is stale in it does not pile up.
        self._heap = [
            (entry.due_ms, key.app, key.name)
            for key, entry in self._entries.items()
            if entry.due_ms is not None
        ]
        heapq.heapify(self._heap)

    def _due(self, now_ms: int) -> list[CronKey]:
        """Take crons that are due off the heap, as many as are decided about at once."""
        keys: list[CronKey] = []
        while self._heap and self._heap[0][0] <= now_ms and len(keys) < CONCURRENT:
            due_ms, app, name = heapq.heappop(self._heap)
            key = CronKey(app, name)
            entry = self._entries.get(key)
            if entry is not None and entry.due_ms == due_ms:
                entry.due_ms = None
                keys.append(key)
        return keys

    async def _look(self, key: CronKey, now_ms: int) -> None:
        entry = self._entries[key]
        try:
            decided = await self._decisions.decide(key, waiting_since_ms=entry.waiting_since_ms)
        except FluvialError as error:
            _LOG.warning("cron not decided about", extra=_extra(key, error))
            self._expect(key, entry, now_ms + RETRY_MS)
            return
        except Exception as error:  # noqa: BLE001 - the boundary of one cron: the others go on
            _LOG.exception("a cron failed", extra=_extra(key, error))
            self._expect(key, entry, now_ms + SWEEP_MS)
            return
        if decided.waits_for:
            entry.waiting_since_ms = entry.waiting_since_ms or now_ms
            self._waits.start(self._await_end(key, entry, decided.waits_for), f"cron {key.name}")
            return
        entry.waiting_since_ms = None
        if decided.next_ms is not None:
            self._expect(key, entry, decided.next_ms)

    async def _await_end(self, key: CronKey, entry: _Entry, run_id: str) -> None:
        try:
            await self._ends.wait_for_end(run_id, WAIT_SECONDS)
        except FluvialError as error:
            _LOG.warning("the end of a cron's run is not known", extra=_extra(key, error))
        finally:
            if self._entries.get(key) is entry:
                self._expect(key, entry, 0)
                self._alarm.wake()

    def _expect(self, key: CronKey, entry: _Entry, due_ms: int) -> None:
        entry.due_ms = due_ms
        heapq.heappush(self._heap, (due_ms, key.app, key.name))


def _extra(key: CronKey, error: Exception) -> dict[str, str]:
    return {"app": key.app, "cron": key.name, "error": str(error)}
