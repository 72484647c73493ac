"""Crons on real stores: rivals, crashes and moved aliases (promise P7), and the whole path."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, TypeVar

import pytest

import fluvial
from fluvial.crons import Cron, Tick, specified
from fluvial.events import decode_event
from fluvial.signatures import decode_result
from fluvial_gateway.crons.deciding import CLAIM_MS
from fluvial_queue.contract import Record, RecordKind, RunRecord, StartOutcome, StartRun, Store
from fluvial_queue.memory import MemoryStore
from fluvial_queue.redis.address import parse_address
from fluvial_queue.redis.store import RedisStore
from tests.integration.in_process import APP, Application
from tests.unit.fluvial_gateway.cron_world import (
    DAY_MS,
    MINUTE_MS,
    CronWorld,
    MovedClock,
    Scheduled,
)

T = TypeVar("T")
TICKS = 200
EVERY_MINUTE = "* * * * *"


class Crashed(Exception):  # noqa: N818 - what a test does to a scheduler, no error of ours
    """The process is gone."""


class Fate:
    """When a gateway's process ends: at one of its next writes, before or after it was done."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.writes_left = 1_000_000
        self.crashes = 0

    async def read(self, operation: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(0)  # rivals get their turn between any two operations
        return await operation()

    async def write(self, operation: Callable[[], Awaitable[T]]) -> T:
        await asyncio.sleep(0)
        self.writes_left -= 1
        if self.writes_left:
            return await operation()
        self.crashes += 1
        if self._chance.random() < 0.5:
            await operation()
        raise Crashed


class MovedMemory(MemoryStore):
    """A gateway's client of the memory store."""

    fate: Fate

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        put = MemoryStore.put_record
        return await self.fate.write(lambda: put(self, kind, record_id, value, expect=expect))

    async def start(self, run: StartRun) -> StartOutcome:
        return await self.fate.write(lambda: MemoryStore.start(self, run))

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None:
        return await self.fate.read(lambda: MemoryStore.get_record(self, kind, record_id))

    async def read_run(self, run_id: str) -> RunRecord | None:
        return await self.fate.read(lambda: MemoryStore.read_run(self, run_id))


class MovedRedis(RedisStore):
    """A gateway's client of Valkey, with a clock that the test moves."""

    fate: Fate
    clock: MovedClock

    async def now_ms(self) -> int:
        return self.clock()

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        put = RedisStore.put_record
        return await self.fate.write(lambda: put(self, kind, record_id, value, expect=expect))

    async def start(self, run: StartRun) -> StartOutcome:
        return await self.fate.write(lambda: RedisStore.start(self, run))


class Rivals:
    """Two gateways that both schedule, on one store."""

    def __init__(self, url: str, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = MovedClock()
        self.fates = [Fate(self.chance) for _ in range(2)]
        backend = MemoryStore(now_ms=self.clock, partitions=4).backend
        self.worlds: list[CronWorld] = []
        for fate in self.fates:
            store: MovedMemory | MovedRedis
            if url:
                store = MovedRedis(parse_address(url))
                store.clock = self.clock
            else:
                store = MovedMemory(backend=backend)
            store.fate = fate
            self.worlds.append(CronWorld(store, self.clock))

    async def race(self, *others: Awaitable[Any]) -> None:
        """Let both decide at once, while one of them may crash and others do what they do."""
        for fate in self.fates:
            fate.writes_left = self.chance.choice((1, 2, 3, 4, 10**6, 10**6, 10**6))
        looks = [world.settle() for world in self.worlds]
        for result in await asyncio.gather(*looks, *others, return_exceptions=True):
            assert (
                result is None or not isinstance(result, Exception) or isinstance(result, Crashed)
            )
        for fate in self.fates:
            fate.writes_left = 10**6
        # Whoever crashed is back, or another one takes over: some seconds later, in any case.
        self.clock.now_ms += CLAIM_MS
        await self.worlds[0].settle()
        self.clock.now_ms -= CLAIM_MS


def play(url: str, seed: int, scenario: Callable[[Rivals], Awaitable[None]]) -> None:
    async def main() -> None:
        rivals = Rivals(url, seed)
        async with asyncio.timeout(120):
            for world in rivals.worlds:
                await world.store.open()
            try:
                await scenario(rivals)
            finally:
                for world in rivals.worlds:
                    await world.store.close()

    asyncio.run(main())


@pytest.fixture(params=["memory", "valkey"])
def url(request: pytest.FixtureRequest) -> str:
    """A store's URL; "" is the memory store."""
    return "" if request.param == "memory" else str(request.getfixturevalue("valkey_url"))


def _ticks(runs: Iterable[RunRecord]) -> Counter[str]:
    return Counter(str(run.meta["tick"]) for run in runs)


def _minute(number: int) -> str:
    return f"2026-01-01T{number // 60:02d}:{number % 60:02d}:00Z"


@pytest.mark.parametrize("seed", [1, 2])
def test_each_of_200_ticks_has_one_run_whoever_races_and_crashes(url: str, seed: int) -> None:
    async def scenario(rivals: Rivals) -> None:
        chance, (world, other) = rivals.chance, rivals.worlds
        cron = Cron(EVERY_MINUTE, overlap="allow", catch_up="all", catch_up_limit=500)
        first = await world.deploy(cron)
        second = await world.deploy(specified(cron, "nightly", "tick"), number=2, promote=False)
        minute = 0
        while minute < TICKS:
            minute = min(TICKS, minute + chance.choice((1, 1, 1, 2, 7)))  # sometimes all are away
            world.at(minute)
            target = chance.choice((first, second, ""))
            move = other.aliases.promote("shop", target, by="test") if target else asyncio.sleep(0)
            await rivals.race(move)

        found = _ticks(await world.started())
        assert found == Counter(_minute(number) for number in range(1, TICKS + 1))
        assert (await world.record()).counts == {"started": TICKS}
        assert sum(fate.crashes for fate in rivals.fates) > 20

    play(url, seed, scenario)


@pytest.mark.parametrize("seed", [3, 4])
def test_missed_ticks_follow_the_policy_whoever_races_and_crashes(url: str, seed: int) -> None:
    async def scenario(rivals: Rivals) -> None:
        chance, (world, _) = rivals.chance, rivals.worlds
        await world.deploy(Cron(EVERY_MINUTE, overlap="allow", catch_up="one"))
        await world.deploy(number=2, promote=False)
        expected: list[int] = []
        minute = active = 0
        while minute < TICKS:
            step = chance.choice((1, 1, 2, 9))
            if chance.random() < 0.1:  # without the cron for a while: those ticks are nobody's
                await world.aliases.promote("shop", "dpl_shop" + "2".zfill(20), by="test")
                world.at(minute + step)
                await rivals.race()
                await world.aliases.rollback("shop", by="test")
            else:
                world.at(minute + step)
                await rivals.race()
                expected.append(minute + step)
                active += step
            minute += step

        assert _ticks(await world.started()) == Counter(map(_minute, expected))
        counts = (await world.record()).counts
        assert counts["started"] == len(expected)
        assert counts["started"] + counts["missed"] == active

    play(url, seed, scenario)


Policy = Literal["skip", "queue", "replace"]


@pytest.mark.parametrize("overlap", ["skip", "queue", "replace"])
def test_rivals_never_let_two_runs_of_a_cron_go_on(url: str, overlap: Policy) -> None:
    async def scenario(rivals: Rivals) -> None:
        chance, (world, _) = rivals.chance, rivals.worlds
        await world.deploy(Cron(EVERY_MINUTE, overlap=overlap))
        for minute in range(1, 60):
            world.at(minute)
            # Once, not until settled: what waits for a run is not settled before its end.
            await asyncio.gather(*(each.decide() for each in rivals.worlds))
            going_on = [run for run in await world.started() if not run.status.is_terminal]
            assert len(going_on) <= 1
            if chance.random() < 0.4:
                await world.finish_all()
        assert set(_ticks(await world.started()).values()) == {1}

    play(url, 5, scenario)


reports: list[Tick] = []


@fluvial.step(name="crons.note")
async def note(tick: Tick) -> str:
    reports.append(tick)
    return tick.at.isoformat()


@fluvial.workflow(name="crons.report")
async def report(place: str, *, tick: Tick) -> str:
    return f"{place} {tick.cron} {await note(tick)}"


def test_a_tick_reaches_the_workflow_through_dispatcher_and_runtime() -> None:
    async def main() -> None:
        clock = MovedClock()
        store: Store = MemoryStore(now_ms=clock, partitions=4)
        await store.open()
        application = Application(store)
        world = CronWorld(store, clock, app=APP, keys=application.keys)
        # Before the dispatcher's leases end: only the store's clock is moved.
        cron = Cron("20 45 5 * * *", name="daily", timezone="Asia/Kathmandu", args=["here"])
        await application.dispatcher.start()
        scheduled = Scheduled(world)
        async with asyncio.timeout(20), scheduled.running():
            await world.deploy(specified(cron, "crons.report", "tick"))
            await scheduled.woken()
            await scheduled.to(1 / 3)
            (run,) = await world.started()
            assert await application.finish(run.run_id) == "completed"
            events = await store.read_events(run.run_id)
            end = decode_event(events[-1])
            keys = application.keys.for_run(run.run_id)
            result = decode_result(keys.open(end.payload, "result"), report.signature.result)
            assert result == "here daily 2026-01-01T05:45:20+05:45"
            assert reports[0].at.timestamp() * 1000 == DAY_MS + MINUTE_MS // 3
        await application.dispatcher.stop()
        await store.close()

    asyncio.run(main())
