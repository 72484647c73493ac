"""The scheduler sleeps until something is due, and is woken by what changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fluvial.crons import Cron
from fluvial_gateway.crons.alarm import LoopAlarm
from fluvial_gateway.crons.scheduler import CONCURRENT, RETRY_MS, SWEEP_MS
from fluvial_gateway.crons.states import CronKey
from fluvial_queue.contract import (
    Record,
    RecordKind,
    RunRecord,
    RunStatus,
    StoreUnavailableError,
)
from fluvial_queue.memory import MemoryStore
from tests.unit.fluvial_gateway.cron_world import DAY_MS, CronWorld, MovedClock, Scheduled, run

HOURLY = "0 * * * *"
NIGHTLY = CronKey("shop", "nightly")


class CountingStore(MemoryStore):
    """Counts how often it is asked for anything, and can be away."""

    asked = 0
    is_away = False

    async def now_ms(self) -> int:
        self._ask()
        return await super().now_ms()

    async def get_record(self, kind: RecordKind, record_id: str) -> Record | None:
        self._ask()
        return await super().get_record(kind, record_id)

    async def read_run(self, run_id: str) -> RunRecord | None:
        self._ask()
        return await super().read_run(run_id)

    async def list_records(self, kind: RecordKind) -> list[Record]:
        self._ask()
        return await super().list_records(kind)

    def _ask(self) -> None:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailableError("away")


def play(scenario: Callable[[Scheduled, CountingStore], Awaitable[None]]) -> None:
    clock = MovedClock()
    store = CountingStore(now_ms=clock, partitions=4)

    async def scheduled(world: CronWorld) -> None:
        await scenario(Scheduled(world), store)

    run(store, clock, scheduled)


def test_it_starts_each_tick_when_it_is_due() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY, overlap="allow"), Cron("*/25 * * * *", name="often"))
        async with scheduled.running():
            await scheduled.to(130)

        assert await world.minutes() == [25, 60, 120]
        assert await world.recent("often") == [
            (25, "started"),
            *((minute, "skipped") for minute in (50, 60, 85, 110, 120)),
        ]
        assert set(world.told.late_seconds) == {0.0}

    play(scenario)


def test_it_sleeps_when_nothing_is_due() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        await scheduled.world.deploy(*(Cron(HOURLY, name=f"n{n}") for n in range(50)))
        async with scheduled.running():
            await scheduled.to(1)
            asked = store.asked
            await scheduled.to(31)
            sweeps = 30 * 60_000 // SWEEP_MS
            assert store.asked - asked <= 2 * sweeps  # the time and the apps, once a sweep

    play(scenario)


def test_a_promotion_wakes_it() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        async with scheduled.running():
            await scheduled.to(59.5)
            await world.deploy(Cron(HOURLY))
            await scheduled.woken()
            assert scheduled.alarm.until_ms == DAY_MS + 3_600_000
            await scheduled.to(60)
            assert await world.minutes() == [60]

    play(scenario)


def test_a_promotion_that_changes_the_jitter_changes_when_the_next_tick_is_due() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY, jitter="59m"))
        async with scheduled.running():
            await scheduled.to(59.5)
            await world.deploy(Cron(HOURLY), number=2)
            await scheduled.woken()
            await scheduled.to(60)
            assert await world.minutes() == [60]

    play(scenario)


def test_a_change_made_by_another_gateway_is_seen_within_a_sweep() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        async with scheduled.running():
            await scheduled.to(57)
            await world.deploy(Cron(HOURLY, overlap="allow"))
            await scheduled.to(61)
            assert await world.minutes() == [60]

            await world.crons.pause(NIGHTLY)  # takes effect at once: each decision reads it
            await scheduled.to(125)
            await world.crons.resume(NIGHTLY)
            await world.deploy(number=2)
            await scheduled.to(185)
            await world.aliases.rollback("shop", by="test")
            await scheduled.to(241)
            assert await world.minutes() == [60, 240]

    play(scenario)


def test_it_rests_while_another_gateway_owns_the_partition() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        scheduled.is_owner = False
        await world.deploy(Cron(HOURLY, catch_up="one"))
        async with scheduled.running():
            await scheduled.to(130)
            assert (await world.started(), store.asked > 5) == ([], False)
            scheduled.is_owner = True
            await scheduled.woken()
            assert await world.minutes() == [120]

            scheduled.is_owner = False
            await scheduled.woken()
            await world.finish_all()
            await scheduled.to(200)
            assert await world.minutes() == [120]

    play(scenario)


def test_a_tick_that_is_queued_starts_when_the_last_run_ends() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY, overlap="queue", catch_up="skip"))
        async with scheduled.running():
            await scheduled.to(121)
            asked = store.asked
            await scheduled.to(190)
            assert store.asked - asked <= 2 * 70  # it waits: only sweeps look at anything
            (first,) = await world.started()
            # A promotion meanwhile does not make the tick that waits a missed one.
            await world.deploy(Cron(HOURLY, overlap="queue", catch_up="skip", args=[2]), number=2)
            await scheduled.woken()
            await world.finish(first.run_id)
            while len(await world.started()) == 1:
                await scheduled.alarm.asleep()
                await asyncio.sleep(0)
            assert await world.minutes() == [60, 180]

    play(scenario)


def test_a_store_that_fails_while_a_tick_waits_does_not_forget_it() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY, overlap="queue", catch_up="skip"))
        async with scheduled.running():
            await scheduled.to(120)
            (first,) = await world.started()
            world.waiters.wake(first.run_id)  # a waiter that looks finds the store away
            store.is_away = True
            await scheduled.to(130)
            store.is_away = False
            await world.finish(first.run_id)
            await scheduled.to(131)
            assert await world.minutes() == [60, 120]

    play(scenario)


def test_a_run_that_is_replaced_makes_room() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY, overlap="replace"))
        async with scheduled.running():
            await scheduled.to(120)
            (first,) = await world.started()
            assert await world.kinds(first.run_id) == ["start", "cancel"]
            await world.finish(first.run_id, RunStatus.CANCELLED)
            while len(await world.started()) == 1:
                await scheduled.alarm.asleep()
                await asyncio.sleep(0)
            assert await world.minutes() == [60, 120]

    play(scenario)


def test_a_store_that_is_away_delays_ticks_and_loses_none() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY))
        async with scheduled.running():
            await scheduled.to(59)
            store.is_away = True
            await scheduled.to(61)
            store.is_away = False
            await scheduled.to(61 + RETRY_MS / 60_000)
            assert await world.minutes() == [60]

    play(scenario)


def test_one_cron_that_fails_does_not_hold_the_others_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        await world.deploy(Cron(HOURLY), Cron(HOURLY, name="odd"))
        await store.put_record("cron", "shop/odd", {"considered_ms": "not a record"})
        async with scheduled.running():
            await scheduled.to(61)
            assert await world.minutes() == [60]
        assert any(record.exc_info for record in caplog.records)

    play(scenario)


def test_many_crons_of_one_moment_are_all_started() -> None:
    async def scenario(scheduled: Scheduled, store: CountingStore) -> None:
        world = scheduled.world
        apps = [f"shop-{letter}" for letter in "abcdefg"]
        for app in apps:
            await world.deploy(*(Cron(HOURLY, name=f"n{n}") for n in range(40)), app=app)
        async with scheduled.running():
            await scheduled.to(60)
        assert len(apps) * 40 > 4 * CONCURRENT
        assert [len(await world.started(app)) for app in apps] == [40] * len(apps)

    play(scenario)


def test_an_alarm_rings_when_it_is_woken_or_its_time_is_up() -> None:
    async def scenario() -> None:
        alarm = LoopAlarm()
        await alarm.wait(0)
        await alarm.wait(0.001)
        alarm.wake()
        await alarm.wait(None)
        waiting = asyncio.create_task(alarm.wait(None))
        await asyncio.sleep(0)
        alarm.wake()
        await waiting

    asyncio.run(asyncio.wait_for(scenario(), 10))
