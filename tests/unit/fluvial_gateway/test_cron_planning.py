"""Which ticks are started, and which are given up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial.crons import Cron, CronSpec, specified
from fluvial_gateway.crons.planning import COUNTED, GRACE_MS, Plan, due_ms, next_due_ms, plan

MINUTE_MS = 60_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def spec(schedule: str = "*/10 * * * *", **arguments: Any) -> CronSpec:
    return specified(Cron(schedule, **arguments), "nightly")


def at(minute: float) -> int:
    return START_MS + int(minute * MINUTE_MS)


def planned(cron: CronSpec, now: float, *, since: float = 0, waiting: float | None = None) -> Plan:
    return plan(
        cron,
        considered_ms=at(since),
        now_ms=at(now),
        waiting_since_ms=None if waiting is None else at(waiting),
    )


def test_a_tick_is_not_started_early() -> None:
    before = plan(spec(), considered_ms=at(0), now_ms=at(10) - 1)

    assert before == Plan(considered_ms=at(0))
    assert planned(spec(), 10).tick_ms == at(10)


@pytest.mark.parametrize("catch_up", ["skip", "one", "all"])
def test_a_tick_that_is_due_now_is_started_whatever_the_policy(catch_up: Any) -> None:
    made = planned(spec(catch_up=catch_up, overlap="allow"), 10 + GRACE_MS / MINUTE_MS)

    assert (made.tick_ms, made.missed) == (at(10), 0)


def test_skip_gives_missed_ticks_up() -> None:
    late = planned(spec(catch_up="skip"), 35)
    assert (late.tick_ms, late.missed, late.last_missed_ms) == (None, 3, at(30))
    assert late.considered_ms == at(30)

    on_time = planned(spec(catch_up="skip"), 30.5)
    assert (on_time.tick_ms, on_time.missed, on_time.last_missed_ms) == (at(30), 2, at(20))


def test_one_starts_the_last_of_the_missed_ticks() -> None:
    made = planned(spec(), 35)

    assert (made.tick_ms, made.missed, made.last_missed_ms) == (at(30), 2, at(20))
    assert made.considered_ms == at(30) - 1


def test_all_starts_every_missed_tick_from_the_oldest_on() -> None:
    cron = spec(catch_up="all", overlap="queue")
    made = planned(cron, 35)

    assert (made.tick_ms, made.missed) == (at(10), 0)
    assert planned(cron, 35, since=10).tick_ms == at(20)


def test_all_is_bounded_by_number_and_age() -> None:
    few = spec(catch_up="all", overlap="queue", catch_up_limit=2)
    made = planned(few, 55)
    assert (made.tick_ms, made.missed, made.last_missed_ms) == (at(40), 3, at(30))

    young = spec(catch_up="all", overlap="queue", catch_up_window="25m")
    made = planned(young, 55)
    assert (made.tick_ms, made.missed) == (at(30), 2)


def test_a_tick_that_waited_for_a_run_was_not_missed() -> None:
    cron = spec(catch_up="skip", overlap="queue")
    waited = planned(cron, 35, waiting=10)
    assert (waited.tick_ms, waited.missed) == (at(30), 2)

    began_later = planned(cron, 35, waiting=31)
    assert began_later.tick_ms is None


@pytest.mark.parametrize("schedule", ["* * * * * *", "@every 1s"])
def test_ticks_without_number_cost_no_more_than_some(schedule: str) -> None:
    one = planned(spec(schedule), 60 * 24 * 365)
    assert (one.tick_ms, one.missed) == (at(60 * 24 * 365), COUNTED - 1)
    assert one.last_missed_ms == at(60 * 24 * 365) - 1000

    every = planned(spec(schedule, catch_up="all", overlap="allow", catch_up_limit=500), 60 * 24)
    assert (every.tick_ms, every.missed) == (at(60 * 24) - 499_000, COUNTED - 500)


def test_jitter_moves_ticks_always_by_the_same_time() -> None:
    cron = spec(jitter="5m")
    delays = {due_ms(cron, at(10 * n)) - at(10 * n) for n in range(200)}

    assert len(delays) > 150
    assert all(0 <= delay < 5 * MINUTE_MS for delay in delays)
    due = due_ms(cron, at(10))
    assert next_due_ms(cron, at(0)) == due
    assert plan(cron, considered_ms=at(0), now_ms=due - 1).tick_ms is None
    assert plan(cron, considered_ms=at(0), now_ms=due).tick_ms == at(10)


@given(
    catch_up=st.sampled_from(["skip", "one", "all"]),
    limit=st.integers(1, 5),
    looks=st.lists(st.integers(0, 90), min_size=1, max_size=12),
    jitter=st.sampled_from([0, 300]),
)
def test_every_tick_is_started_once_or_given_up_once(
    catch_up: Any, limit: int, looks: list[int], jitter: int
) -> None:
    cron = spec(catch_up=catch_up, overlap="allow", catch_up_limit=limit, jitter=jitter)
    considered, now, started, missed = at(0), 0, list[int](), 0
    for pause in looks:
        now += pause
        while True:
            made = plan(cron, considered_ms=considered, now_ms=at(now))
            missed += made.missed
            considered = made.considered_ms
            if made.tick_ms is None:
                break
            started.append(made.tick_ms)
            considered = made.tick_ms

    due = [n for n in range(10, now + 1, 10) if due_ms(cron, at(n)) <= at(now)]
    assert len(set(started)) == len(started)
    assert len(started) + missed == len(due)
    assert started == sorted(started)
