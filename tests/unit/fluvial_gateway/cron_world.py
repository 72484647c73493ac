"""Crons on a store whose clock a test moves: the real catalogue, aliases, runs and decisions.

Ticks are counted in minutes of one day, so `world.at(180)` is three o'clock.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fluvial.crons import Cron, CronSpec, specified
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType
from fluvial.ids import partition_of
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.sealing import Binding
from fluvial_gateway.aliases import Aliases
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.crons.deciding import CronDecisions, Decided
from fluvial_gateway.crons.scheduler import CronScheduler
from fluvial_gateway.crons.service import Crons
from fluvial_gateway.crons.starting import CronRuns
from fluvial_gateway.crons.states import CronKey, CronStates
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.runs import Runs
from fluvial_gateway.waiting import Waiters
from fluvial_queue.contract import (
    CommitEntry,
    CommitOutcome,
    Lease,
    RunQuery,
    RunRecord,
    RunStatus,
    Store,
)
from fluvial_queue.cron_records import CronRecord
from fluvial_queue.messages import decode_message
from fluvial_queue.records import AppRecord, DeploymentFunctions, DeploymentRecord

MINUTE_MS = 60_000
DAY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
APP = "shop"
KEYS = AppKeys(APP, {"k1": hashlib.sha256(b"shop").digest()}, "k1")


class MovedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_ms = DAY_MS

    def __call__(self) -> int:
        return self.now_ms


class Told:
    """What an observer of crons was told."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}
        self.late_seconds: list[float] = []

    def cron_ticks(self, app: str, workflow: str, outcome: str, count: int) -> None:
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + count

    def cron_started(self, late_seconds: float) -> None:
        self.late_seconds.append(late_seconds)


class CronWorld:
    """One gateway's view of a store; several may look at the same one."""

    def __init__(
        self, store: Store, clock: MovedClock, *, app: str = APP, keys: AppKeys = KEYS
    ) -> None:
        self.app = app
        self.keys = keys
        self.store = store
        self.clock = clock
        self.told = Told()
        self.catalogue = Catalogue(store)
        self.aliases = Aliases(self.catalogue, _nothing)
        self.waiters = Waiters(store)
        runs = Runs(store, self.catalogue, self.waiters, Fingerprints(b"k" * 32))
        self.runs = CronRuns(runs)
        self.states = CronStates(store)
        self.decisions = CronDecisions(
            self.catalogue, self.states, self.runs, self.told, store.now_ms
        )
        self.changes = 0
        self.crons = Crons(
            self.catalogue,
            self.states,
            self.runs,
            self.told,
            now_ms=store.now_ms,
            changed=self._changed,
        )
        self._leases: dict[int, Lease] = {}

    # ---- time ----

    def at(self, minute: float) -> int:
        """Move the clock to a minute of the day."""
        self.clock.now_ms = DAY_MS + int(minute * MINUTE_MS)
        return self.clock.now_ms

    # ---- deployments ----

    async def deploy(
        self, *crons: Cron | CronSpec, app: str = "", number: int = 1, promote: bool = True
    ) -> str:
        """Make a deployment with these crons of `nightly`, the app's production by default."""
        app = app or self.app
        deployment = f"dpl_{app}{number:0{24 - len(app)}d}"
        record = DeploymentRecord(
            spec=DeploymentSpec(
                deployment=deployment,
                app=app,
                bundle="b" * 64,
                layer="",
                entrypoint=None,
                workflows=("main",),
                instance=InstanceSettings(),
            ),
            created_ms=await self.store.now_ms(),
            functions=DeploymentFunctions(
                workflows=("nightly", "weekly", "crons.report"),
                crons=tuple(
                    c if isinstance(c, CronSpec) else specified(c, "nightly") for c in crons
                ),
            ),
        )
        await self.catalogue.add_deployment(record)
        if await self.catalogue.find_app(app) is None:
            key_id, public_key = self.keys.public_key()
            new = AppRecord(app=app, key_id=key_id, public_key=public_key)
            assert await self.catalogue.save_app(new, expect=0)
        if promote:
            await self.aliases.promote(app, deployment, by="test")
        return deployment

    # ---- deciding ----

    async def decide(self, name: str = "nightly", **arguments: Any) -> Decided:
        """Look at a cron once."""
        return await self.decisions.decide(CronKey(self.app, name), **arguments)

    async def settle(self, name: str = "nightly", **arguments: Any) -> Decided:
        """Look at a cron until nothing of it is due any more."""
        for _ in range(1000):
            decided = await self.decide(name, **arguments)
            if decided.next_ms is None or decided.next_ms > self.clock.now_ms:
                return decided
        raise AssertionError(f"{name} is due for ever")

    async def record(self, name: str = "nightly") -> CronRecord:
        """What is known of a cron."""
        return (await self.states.read(CronKey(self.app, name))).record

    async def recent(self, name: str = "nightly") -> list[tuple[float, str]]:
        """(minute, outcome) of what became of the last ticks, oldest first."""
        record = await self.record(name)
        return [
            ((event.tick_ms - DAY_MS) / MINUTE_MS, event.outcome)
            for event in reversed(record.recent)
        ]

    # ---- runs ----

    async def started(self, app: str = "") -> list[RunRecord]:
        """All runs of an app, oldest first."""
        app = app or self.app
        found: list[RunRecord] = []
        cursor: str | None = None
        while True:
            page = await self.store.query_runs(RunQuery(app=app, limit=100, cursor=cursor))
            found += page.runs
            cursor = page.cursor
            if cursor is None:
                return sorted(found, key=lambda run: (run.created_ms, run.key))

    async def minutes(self) -> list[float]:
        """The ticks that have a run, in minutes, as the runs' records say."""
        ticks = [str(run.meta["tick"]) for run in await self.started()]
        return sorted((_unix_ms(tick) - DAY_MS) / MINUTE_MS for tick in ticks)

    async def finish(
        self,
        run_id: str,
        status: RunStatus = RunStatus.COMPLETED,
        event: Event | None = None,
    ) -> None:
        """End a run, as its owner would."""
        messages = [
            message
            for message in await self._window(partition_of(run_id))
            if decode_message(message.body).run_id == run_id
        ]
        found = await self.store.read_run(run_id)
        assert found is not None
        last = event or Event(EventType.RUN_COMPLETED, self.clock.now_ms)
        reply = await self.store.commit(
            self._leases[partition_of(run_id)],
            [
                CommitEntry(
                    run_id=run_id,
                    handled=tuple(message.id for message in messages),
                    base=found.events,
                    events=(last.encode(),),
                    status=status,
                )
            ],
        )
        assert reply.answers[0].outcome is CommitOutcome.OK
        self.waiters.wake(run_id)

    async def finish_all(self) -> None:
        """End every run that goes on."""
        for run in await self.started():
            if not run.status.is_terminal:
                await self.finish(run.run_id)

    async def kinds(self, run_id: str) -> list[str]:
        """The kinds of a run's outstanding messages."""
        messages = [decode_message(m.body) for m in await self._window(partition_of(run_id))]
        return [message.kind.value for message in messages if message.run_id == run_id]

    def arguments(self, run: RunRecord) -> Any:
        """What the gateway sealed for the app's instances."""
        opened = self.keys.open(Binding(self.app, run.run_id, "input"), run.input)
        assert opened[:1] == b"j"
        return json.loads(opened[1:])

    async def _window(self, partition: int) -> list[Any]:
        if partition not in self._leases:
            lease = await self.store.acquire(partition, owner="test", ttl_ms=10**12)
            assert lease is not None
            self._leases[partition] = lease
        window = await self.store.window(self._leases[partition], after="", limit=10_000)
        assert window is not None
        return window

    def _changed(self) -> None:
        self.changes += 1


class MovedAlarm:
    """A scheduler's alarm by a clock that a test moves; tells when the scheduler sleeps."""

    def __init__(self, clock: MovedClock) -> None:
        self._clock = clock
        self._woken = asyncio.Event()
        self._asleep = asyncio.Event()
        self.until_ms = 0

    def wake(self) -> None:
        self._woken.set()

    async def wait(self, seconds: float | None) -> None:
        self.until_ms = self._clock.now_ms + int((seconds or 0) * 1000)
        self._asleep.set()
        await self._woken.wait()
        self._woken.clear()
        self._asleep.clear()

    async def asleep(self) -> None:
        """Return once the scheduler sleeps and nothing has woken it."""
        while not self._asleep.is_set() or self._woken.is_set():
            await self._asleep.wait()
            await asyncio.sleep(0)


class Scheduled:
    """A world with a scheduler that runs."""

    def __init__(self, world: CronWorld) -> None:
        self.world = world
        self.alarm = MovedAlarm(world.clock)
        self.is_owner = True
        self.scheduler = CronScheduler(
            world.catalogue,
            world.decisions,
            world.waiters,
            is_owner=lambda: self.is_owner,
            now_ms=world.store.now_ms,
            alarm=self.alarm,
        )

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Scheduled]:
        """Run the scheduler meanwhile."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.scheduler.run())
            await self.alarm.asleep()
            yield self
            await self.scheduler.close()

    async def to(self, minute: float) -> None:
        """Let time pass, waking the scheduler whenever it wanted to be."""
        end_ms = DAY_MS + int(minute * MINUTE_MS)
        await self.alarm.asleep()
        while self.alarm.until_ms <= end_ms:
            self.world.clock.now_ms = max(self.world.clock.now_ms, self.alarm.until_ms)
            self.alarm.wake()
            await self.alarm.asleep()
        self.world.clock.now_ms = end_ms

    async def woken(self) -> None:
        """Tell the scheduler that something has changed, and let it look."""
        await self.alarm.asleep()
        self.scheduler.wake()
        await self.alarm.asleep()


def run(store: Store, clock: MovedClock, scenario: Callable[[CronWorld], Awaitable[None]]) -> None:
    """Run a scenario on an open store."""

    async def main() -> None:
        async with asyncio.timeout(60):
            await store.open()
            try:
                await scenario(CronWorld(store, clock))
            finally:
                await store.close()

    asyncio.run(main())


async def _nothing() -> None: ...


def _unix_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)
