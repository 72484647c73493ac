"""When to start another instance, how long a queue takes, and how many starts there may be."""

from __future__ import annotations

from typing import Any

import pytest

from fluvial_gateway.scheduling import (
    FIRST_COLD_SECONDS,
    Forecast,
    Forecasts,
    Standing,
    StartBudget,
)


def standing(**changes: Any) -> Standing:
    return Standing(**{"waiting": 1, "starting": 0, "living": 0, "most": 8, **changes})


def learned(*, held: float, places: int, cold: float) -> Forecast:
    """Return what is known after many ends with so many places, and one start."""
    forecast = Forecast()
    forecast.started(cold)
    forecast.count_from(0.0)
    for number in range(1, 21):
        forecast.ended(number * held / places, places)
    return forecast


@pytest.mark.parametrize(
    ("waiting", "room", "living", "most", "starting", "wanted"),
    [
        (1, 10, 0, 8, 0, 1),
        (10, 10, 0, 8, 0, 1),
        (11, 10, 0, 8, 0, 2),
        (10, 10, 0, 8, 1, 0),
        (1000, 10, 0, 8, 0, 8),
        (1000, 10, 6, 8, 1, 1),
        (1, 10, 8, 8, 0, 0),
        (5, 0, 0, 8, 0, 5),
        (0, 10, 0, 8, 0, 0),
    ],
)
def test_while_nothing_is_known_what_waits_gets_instances(
    waiting: int, room: int, living: int, most: int, starting: int, wanted: int
) -> None:
    now = standing(waiting=waiting, room_of_one=room, living=living, most=most, starting=starting)

    assert Forecast().starts_wanted(now) == wanted


def test_what_gets_a_place_before_a_start_is_over_waits_for_it() -> None:
    forecast = learned(held=0.1, places=10, cold=0.2)  # 100 places a second, so 20 in a start

    assert forecast.starts_wanted(standing(waiting=15, places=10, living=1)) == 0
    assert forecast.starts_wanted(standing(waiting=25, places=10, living=1, room_of_one=10)) == 1


def test_a_place_that_is_held_for_longer_than_a_start_takes_is_not_waited_for() -> None:
    forecast = learned(held=30.0, places=10, cold=0.2)

    assert forecast.starts_wanted(standing(waiting=1, places=10, living=1)) == 1


def test_without_a_place_that_will_be_free_nothing_is_waited_for() -> None:
    forecast = learned(held=0.1, places=10, cold=0.2)

    assert forecast.starts_wanted(standing(waiting=1, places=0, living=1)) == 1


def test_only_what_is_behind_the_served_needs_instances() -> None:
    forecast = learned(held=0.4, places=10, cold=0.2)  # 5 places in a start; a fresh one serves 15

    now = standing(waiting=45, places=10, living=1, room_of_one=10)
    assert forecast.starts_wanted(now) == 3


def test_an_app_that_starts_slowly_is_not_started_for_each_of_a_crowd() -> None:
    forecast = learned(held=0.1, places=10, cold=2.0)

    now = standing(waiting=400, room_of_one=10)  # one serves 10 at once, and 200 in two seconds
    assert forecast.starts_wanted(now) == 2


def test_so_many_as_are_to_be_kept_are_started_without_work() -> None:
    assert Forecast().starts_wanted(standing(waiting=0, least=2, living=1)) == 1
    assert Forecast().starts_wanted(standing(waiting=0, least=2, living=1, starting=1)) == 0


def test_who_has_waited_for_as_long_as_a_start_gets_one_more() -> None:
    forecast = Forecast()

    assert forecast.starts_overdue(standing(places=10, living=1)) == 1
    assert forecast.starts_overdue(standing(places=10, living=1, starting=1)) == 0
    assert forecast.starts_overdue(standing(places=10, living=8)) == 0
    assert forecast.starts_overdue(standing(waiting=0, living=1)) == 0


def test_the_length_of_a_start_is_that_of_the_last_ones() -> None:
    forecast = Forecast()
    assert forecast.cold_seconds == FIRST_COLD_SECONDS

    forecast.started(2.0)
    assert forecast.cold_seconds == 2.0

    for _ in range(20):
        forecast.started(0.01)
    assert forecast.cold_seconds == pytest.approx(0.01, abs=0.005)


def test_the_wait_follows_from_places_and_how_long_they_are_held() -> None:
    forecast = learned(held=0.5, places=5, cold=0.2)

    assert forecast.wait_seconds(10, standing(places=5)) == pytest.approx(1.0)
    assert forecast.wait_seconds(10, standing(places=0)) is None
    assert Forecast().wait_seconds(10, standing(places=5)) is None


def test_who_cannot_make_it_is_told_at_once() -> None:
    forecast = learned(held=1.0, places=1, cold=0.2)
    full = standing(waiting=29, places=1, living=8)

    assert forecast.hopeless_seconds(full, 29.0) == pytest.approx(30.0)
    assert forecast.hopeless_seconds(full, 31.0) is None


def test_nobody_is_hopeless_while_another_instance_can_start() -> None:
    forecast = learned(held=1.0, places=1, cold=0.2)

    assert forecast.hopeless_seconds(standing(waiting=99, places=1, living=7), 1.0) is None


def test_a_few_ends_refuse_nobody() -> None:
    forecast = Forecast()
    forecast.count_from(0.0)
    forecast.ended(100.0, 1)

    assert forecast.hopeless_seconds(standing(waiting=9, places=1, living=8), 1.0) is None


def test_a_budget_allows_a_burst_and_fills_again() -> None:
    budget = StartBudget(3, per_second=2.0)
    assert budget.available(100.0) == 3
    budget.take(3)

    assert budget.available(100.0) == 0
    assert budget.seconds_to_next() == pytest.approx(0.5)
    assert budget.available(100.5) == 1
    assert budget.available(1000.0) == 3


def test_what_was_learned_outlives_the_last_instance() -> None:
    forecasts = Forecasts()
    forecasts.of("dpl_1").started(2.0)
    for number in range(2, 900):
        forecasts.of(f"dpl_{number}")

    assert forecasts.of("dpl_1").cold_seconds == 2.0


def test_of_many_deployments_the_least_recent_are_forgotten() -> None:
    forecasts = Forecasts()
    forecasts.of("dpl_1").started(2.0)
    for number in range(2, 1002):
        forecasts.of(f"dpl_{number}")

    assert forecasts.of("dpl_1").cold_seconds == FIRST_COLD_SECONDS
