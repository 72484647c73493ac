"""What becomes of a cron's ticks, and that crashes and rivals change nothing about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from fluvial.crons import Cron, specified
from fluvial.events import Event, EventType
from fluvial.ids import new_run_id
from fluvial_gateway.crons.deciding import CLAIM_MS, Decided
from fluvial_gateway.crons.states import CronKey
from fluvial_queue.contract import (
    OutcomeUnknownError,
    RecordKind,
    RunStatus,
    StartOutcome,
    StartRun,
    StoreFullError,
    StoreUnavailableError,
)
from fluvial_queue.memory import MemoryStore
from tests.unit.fluvial_gateway.cron_world import DAY_MS, MINUTE_MS, CronWorld, MovedClock, run

T = TypeVar("T")
Scenario = Callable[[CronWorld], Awaitable[None]]
HOURLY = "0 * * * *"
NIGHTLY = CronKey("shop", "nightly")


def play(scenario: Scenario) -> None:
    clock = MovedClock()
    run(MemoryStore(now_ms=clock, partitions=4), clock, scenario)


def at(minute: float) -> int:
    return DAY_MS + int(minute * MINUTE_MS)


def test_a_tick_starts_one_run_with_its_arguments_sealed() -> None:
    async def scenario(world: CronWorld) -> None:
        cron = Cron(HOURLY, timezone="Asia/Kathmandu", args=["eu"], kwargs={"keep": 3})
        await world.deploy(specified(cron, "nightly", "tick"))
        world.at(75)  # 60 minutes in Kathmandu are 15 minutes past the hour here
        await world.settle()

        (started,) = await world.started()
        assert (started.workflow, started.deployment) == ("nightly", "dpl_shop" + "1".zfill(20))
        assert started.key == "cron:nightly:2026-01-01T01:15:00Z"
        assert started.meta == {"cron": "nightly", "tick": "2026-01-01T01:15:00Z"}
        assert started.tags == {"cron": "nightly"}
        assert world.arguments(started) == {
            "args": ["eu"],
            "kwargs": {
                "keep": 3,
                "tick": {"cron": "nightly", "at": "2026-01-01T07:00:00+05:45"},
            },
        }

    play(scenario)


def test_a_tick_is_never_early_and_comes_once() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.clock.now_ms = at(60) - 1
        assert await world.decide() == Decided(next_ms=at(60))
        assert await world.started() == []

        world.clock.now_ms = at(60)
        for _ in range(5):
            assert await world.decide() == Decided(next_ms=at(120))
        assert await world.minutes() == [60]
        assert world.told.outcomes == {"started": 1}
        assert world.told.late_seconds == [0.0]

    play(scenario)


def test_a_cron_begins_with_its_promotion() -> None:
    async def scenario(world: CronWorld) -> None:
        world.at(90)
        await world.deploy(Cron(HOURLY, catch_up="all", overlap="allow"))
        assert await world.settle() == Decided(next_ms=at(120))
        assert await world.started() == []
        assert await world.recent() == []

    play(scenario)


@pytest.mark.parametrize(
    ("catch_up", "minutes", "recent"),
    [
        ("skip", [60], [(60, "started"), (300, "missed")]),
        ("one", [60, 300], [(60, "started"), (240, "missed"), (300, "started")]),
        ("all", [60, 120, 180, 240, 300], [(n, "started") for n in (60, 120, 180, 240, 300)]),
    ],
)
def test_missed_ticks_follow_the_policy(
    catch_up: Any, minutes: list[int], recent: list[tuple[int, str]]
) -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, catch_up=catch_up, overlap="allow"))
        world.at(60)
        await world.settle()
        world.at(355)  # nobody was there for four hours
        await world.settle()

        assert await world.minutes() == minutes
        assert await world.recent() == recent
        assert sum((await world.record()).counts.values()) == 5

    play(scenario)


def test_skip_lets_a_tick_pass_while_the_last_run_goes_on() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        for hour in (1, 2, 3):
            world.at(60 * hour)
            await world.settle()
        await world.finish_all()
        world.at(240)
        await world.settle()

        assert await world.minutes() == [60, 240]
        assert await world.recent() == [
            (60, "started"),
            (120, "skipped"),
            (180, "skipped"),
            (240, "started"),
        ]
        first = (await world.started())[0]
        assert (await world.record()).recent[1].reason == f"{first.run_id} still goes on"
        assert world.told.outcomes == {"started": 2, "skipped": 2}

    play(scenario)


def test_allow_starts_a_run_beside_the_last_one() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, overlap="allow"))
        for hour in (1, 2, 3):
            world.at(60 * hour)
            await world.settle()

        assert await world.minutes() == [60, 120, 180]

    play(scenario)


def test_queue_holds_one_tick_until_the_last_run_has_ended() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, overlap="queue", catch_up="skip"))
        world.at(60)
        await world.settle()
        (first,) = await world.started()
        world.at(120)
        assert await world.decide() == Decided(waits_for=first.run_id)
        world.at(185)
        await world.finish(first.run_id)
        assert await world.settle(waiting_since_ms=at(120)) == Decided(next_ms=at(240))

        assert await world.minutes() == [60, 180]
        assert await world.recent() == [(60, "started"), (120, "missed"), (180, "started")]
        assert "waits in its place" in (await world.record()).recent[1].reason

    play(scenario)


def test_queue_with_all_starts_what_waited_one_after_the_other() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, overlap="queue", catch_up="all"))
        world.at(200)
        for expected in ([60], [60, 120], [60, 120, 180]):
            await world.decide()
            assert await world.minutes() == expected
            running = (await world.record()).last_run
            decided = await world.decide()
            if expected[-1] != 180:
                assert decided == Decided(waits_for=running)
            await world.finish(running)

        assert await world.decide() == Decided(next_ms=at(240))

    play(scenario)


def test_replace_cancels_the_last_run_and_starts_when_it_has_ended() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, overlap="replace"))
        world.at(60)
        await world.settle()
        (first,) = await world.started()
        world.at(120)
        assert await world.decide() == Decided(waits_for=first.run_id)
        assert await world.kinds(first.run_id) == ["start", "cancel"]
        assert await world.decide(waiting_since_ms=at(120)) == Decided(waits_for=first.run_id)
        assert await world.kinds(first.run_id) == ["start", "cancel"]

        await world.finish(first.run_id, RunStatus.CANCELLED)
        await world.settle(waiting_since_ms=at(120))
        assert await world.minutes() == [60, 120]

    play(scenario)


def test_a_run_goes_on_in_the_runs_that_continue_it() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY), Cron(HOURLY, name="other"))
        world.at(60)
        await world.settle()
        await world.settle("other")
        first = (await world.record()).last_run
        continued = (await world.record("other")).last_run
        end = Event(EventType.RUN_CONTINUED, 1, 0, b"", {"run": continued, "workflow": "nightly"})
        await world.finish(first, RunStatus.CONTINUED, end)
        world.at(120)
        await world.settle()
        assert (await world.recent())[-1] == (120, "skipped")

        await world.finish(continued)
        world.at(180)
        await world.settle()
        assert (await world.recent())[-1] == (180, "started")

    play(scenario)


def test_a_run_that_is_about_to_be_continued_goes_on() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron("*/20 * * * * *", overlap="queue"))
        world.at(1)
        await world.settle()
        last, following = (await world.record()).last_run, new_run_id(4)
        end = Event(EventType.RUN_CONTINUED, 1, 0, b"", {"run": following, "workflow": "nightly"})
        await world.finish(last, RunStatus.CONTINUED, end)

        world.at(1.5)
        assert await world.decide() == Decided(waits_for=following)
        world.at(2)  # it is not to come any more: it was deleted
        assert (await world.decide()).waits_for == ""

    play(scenario)


def test_a_paused_cron_starts_nothing_and_drops_the_ticks_of_the_pause() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, catch_up="all", overlap="allow"))
        world.at(30)
        paused = await world.crons.pause(NIGHTLY)
        assert (paused.record.is_paused, paused.next_tick_ms) == (True, None)
        world.at(150)
        assert await world.decide() == Decided()
        assert (await world.crons.pause(NIGHTLY)).record.is_paused
        resumed = await world.crons.resume(NIGHTLY)
        assert (resumed.next_tick_ms, world.changes) == (at(180), 1)
        await world.settle()
        assert await world.started() == []
        await world.crons.resume(NIGHTLY)  # not paused: nothing is dropped

        world.at(180)
        await world.settle()
        assert await world.minutes() == [180]

    play(scenario)


def test_a_trigger_starts_a_run_whatever_stands_in_the_way() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.at(60)
        await world.settle()
        await world.crons.pause(NIGHTLY)
        world.at(75)
        started = await world.crons.trigger(NIGHTLY, idempotency_key="k")
        again = await world.crons.trigger(NIGHTLY, idempotency_key="k")
        assert (again.run_id, again.outcome) == (started.run_id, "duplicate")
        await world.crons.trigger(NIGHTLY)

        assert await world.minutes() == [60, 75, 75]
        assert (await world.record()).counts == {"started": 1, "triggered": 2}
        assert world.told.outcomes == {"started": 1, "triggered": 2}

        # The next tick sees it as the last run.
        await world.finish_all()
        await world.crons.resume(NIGHTLY)
        last = await world.crons.trigger(NIGHTLY)
        world.at(120)
        await world.settle()
        assert (await world.record()).recent[0].reason == f"{last.run_id} still goes on"

    play(scenario)


def test_only_the_production_deployment_has_crons() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        await world.deploy(number=2)
        world.at(60)
        assert await world.decide() == Decided()
        world.at(90)
        await world.aliases.rollback("shop", by="test")
        # The ticks of the time in between are nobody's, even for a cron that would catch up.
        assert await world.settle() == Decided(next_ms=at(120))
        assert await world.started() == []

    play(scenario)


def test_a_cron_that_stays_goes_on_over_a_promotion_with_the_new_code() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.at(59)
        second = await world.deploy(Cron(HOURLY, args=[2]), number=2)
        world.at(61)
        await world.settle()
        (started,) = await world.started()
        assert (started.deployment, world.arguments(started)) == (second, [2])

        # A tick that had come before the move is not lost by it, nor started twice.
        world.at(121)
        await world.aliases.rollback("shop", by="test")
        await world.finish_all()
        await world.settle()
        assert await world.minutes() == [60, 120]

    play(scenario)


@pytest.mark.parametrize(
    "changed", [Cron("30 * * * *", name="nightly"), Cron(HOURLY, timezone="Asia/Kathmandu")]
)
def test_a_cron_with_other_ticks_begins_anew(changed: Cron) -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, catch_up="all", overlap="allow"))
        world.at(100)
        await world.deploy(changed, number=2)
        await world.settle()
        assert await world.started() == []

    play(scenario)


def test_a_start_that_the_platform_refuses_is_noted_and_passes() -> None:
    async def scenario(world: CronWorld) -> None:
        await world.deploy(specified(Cron(HOURLY, name="nightly"), "gone"))
        world.at(60)
        assert await world.settle() == Decided(next_ms=at(120))
        (event,) = (await world.record()).recent
        assert (event.outcome, event.run_id) == ("refused", "")
        assert event.reason.startswith("workflow_not_found: dpl_shop")

    play(scenario)


def test_a_store_without_room_delays_the_tick() -> None:
    class Full(MemoryStore):
        is_full = True

        async def start(self, run: StartRun) -> StartOutcome:
            if self.is_full:
                raise StoreFullError("no room")
            return await super().start(run)

    clock = MovedClock()
    store = Full(now_ms=clock, partitions=4)

    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.at(60)
        with pytest.raises(StoreFullError):
            await world.decide()
        store.is_full = False
        world.at(61)
        await world.settle()
        assert await world.recent() == [(60, "started")]
        assert world.told.late_seconds == [60.0]

    run(store, clock, scenario)


def test_a_pause_that_comes_while_a_tick_is_decided_about_is_kept() -> None:
    class Interrupted(MemoryStore):
        before_writes: list[Callable[[], Awaitable[Any]] | None]

        async def put_record(
            self,
            kind: RecordKind,
            record_id: str,
            value: dict[str, Any],
            *,
            expect: int | None = None,
        ) -> int | None:
            interrupt = self.before_writes.pop(0) if self.before_writes else None
            if interrupt is not None:
                await interrupt()
            return await super().put_record(kind, record_id, value, expect=expect)

    clock = MovedClock()
    store = Interrupted(now_ms=clock, partitions=4)
    store.before_writes = []

    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.at(60)
        store.before_writes = [lambda: world.crons.pause(NIGHTLY)]
        assert await world.settle() == Decided()
        assert (await world.started(), (await world.record()).is_paused) == ([], True)

        await world.crons.resume(NIGHTLY)
        world.at(120)
        store.before_writes = [None, lambda: world.crons.pause(NIGHTLY)]  # between claim and end
        await world.decide()
        assert await world.minutes() == [120]
        assert (await world.record()).is_paused

    run(store, clock, scenario)


class Crashed(Exception):  # noqa: N818 - what a test does to a scheduler, no error of ours
    """The process is gone."""


class CrashingStore(MemoryStore):
    """Ends whoever calls its n-th writing operation, before or after it was done."""

    writes = 0
    crash_at = -1
    is_done_before = False
    crash: type[Exception] = Crashed

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None:
        return await self._write(lambda: MemoryStore.put_record(self, kind, record_id, value,
                                                                expect=expect))  # fmt: skip

    async def start(self, run: StartRun) -> StartOutcome:
        return await self._write(lambda: MemoryStore.start(self, run))

    async def _write(self, operation: Callable[[], Awaitable[T]]) -> T:
        self.writes += 1
        if self.writes != self.crash_at:
            return await operation()
        if self.is_done_before:
            await operation()
        raise self.crash


@pytest.mark.parametrize("is_done_before", [False, True])
@pytest.mark.parametrize("crash", [Crashed, OutcomeUnknownError, StoreUnavailableError])
@pytest.mark.parametrize("crash_at", range(1, 10))
@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_a_crash_anywhere_starts_no_tick_twice_and_loses_none(
    catch_up: Any, crash_at: int, crash: type[Exception], is_done_before: bool
) -> None:
    clock = MovedClock()
    store = CrashingStore(now_ms=clock, partitions=4)
    store.is_done_before, store.crash = is_done_before, crash

    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, overlap="allow", catch_up=catch_up))
        store.crash_at = store.writes + crash_at
        for minute in (60, 120, 180):
            world.at(minute)
            try:
                await world.settle()
            except (Crashed, OutcomeUnknownError, StoreUnavailableError):
                world.clock.now_ms += CLAIM_MS  # the next one comes a few seconds later
                await world.settle()

        assert await world.minutes() == [60, 120, 180]
        assert await world.recent() == [(n, "started") for n in (60, 120, 180)]
        assert (await world.record()).starting is None

    run(store, clock, scenario)


def test_a_fresh_claim_is_left_to_its_maker() -> None:
    clock = MovedClock()
    store = CrashingStore(now_ms=clock, partitions=4)

    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY))
        world.at(60)
        store.crash_at = store.writes + 2  # the start
        with pytest.raises(Crashed):
            await world.decide()
        claimed = (await world.record()).starting
        assert claimed is not None

        world.clock.now_ms += CLAIM_MS - 1
        assert (await world.decide()).next_ms == world.clock.now_ms + 1000
        assert (await world.record()).starting == claimed
        world.clock.now_ms += 1
        await world.settle()
        assert await world.minutes() == [60]

    run(store, clock, scenario)


def test_a_start_that_was_found_after_a_crash_says_so() -> None:
    clock = MovedClock()
    store = CrashingStore(now_ms=clock, partitions=4)

    async def scenario(world: CronWorld) -> None:
        await world.deploy(Cron(HOURLY, catch_up="one"))
        world.at(60)
        store.crash_at, store.is_done_before = store.writes + 2, True
        with pytest.raises(Crashed):
            await world.decide()
        world.at(125)  # two hours later: the run of the first tick is known, and goes on
        await world.settle()

        assert await world.recent() == [(60, "started"), (120, "skipped")]
        assert (await world.record()).recent[1].reason == "found after an interruption"
        assert await world.minutes() == [60]

    run(store, clock, scenario)
