"""The scheduler in simulated time: what must always hold, and where it is better than others.

A small slice of what `python -m tests.simulation` plays. Times are simulated: nothing here depends
on how fast a machine is. That nothing waits beside an instance with room, and that there are never
too many instances, is checked after each event of every park.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from fluvial_gateway.pool_contract import PoolLimits
from tests.simulation.comparing import compare
from tests.simulation.policies import Measured
from tests.simulation.traces import (
    TRACES,
    Request,
    awaiting,
    bursts,
    mixed,
    poisson,
    recorded,
    sparse,
)
from tests.simulation.world import Park, Policy, Report

MOST = 20
COLD_SECONDS = 0.1


def play(
    trace: list[Request],
    policy: Policy | None = None,
    *,
    most: int = MOST,
    cold_seconds: float = COLD_SECONDS,
) -> Report:
    return Park(policy or Measured(), cold_seconds=cold_seconds, most=most).play(trace)


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_lost_and_there_are_never_too_many(name: str, seed: int) -> None:
    arrivals, work = TRACES[name]
    report = play(arrivals(seed, seconds=60.0, per_second=30.0, work=work), most=5)

    assert report.served + report.refused == report.requests
    assert report.most_instances <= 5


def test_the_same_trace_is_played_the_same_way() -> None:
    def once() -> Report:
        return play(bursts(7, seconds=60.0, per_second=20.0, work=mixed))

    assert once() == once()


def test_steady_waiting_work_needs_no_second_instance() -> None:
    reports = compare(
        poisson(1, seconds=60.0, per_second=50.0, work=awaiting),
        cold_seconds=COLD_SECONDS,
        most=MOST,
    )
    ours = reports["measured"]

    assert ours.cold_starts == min(report.cold_starts for report in reports.values()) == 1
    assert ours.instance_seconds <= min(report.instance_seconds for report in reports.values())
    assert 10 * ours.instance_seconds < reports["fixed 1"].instance_seconds


def test_in_a_burst_less_is_waited_than_with_knatives_autoscaler() -> None:
    reports = compare(
        bursts(1, seconds=60.0, per_second=50.0, work=awaiting),
        cold_seconds=COLD_SECONDS,
        most=MOST,
    )
    ours = reports["measured"]

    for name in ("Knative 10", "Knative 100", "fixed 1"):
        assert 3 * ours.wait(0.99) < reports[name].wait(0.99)
    assert ours.wait(0.99) < 1.1 * reports["fixed 100"].wait(0.99)
    assert ours.cold_starts <= reports["fixed 100"].cold_starts


def test_what_computes_does_not_hold_up_what_waits() -> None:
    reports = compare(
        poisson(1, seconds=60.0, per_second=50.0, work=mixed),
        cold_seconds=COLD_SECONDS,
        most=MOST,
    )
    ours = reports["measured"]

    for name in ("fixed 100", "Knative 10", "Knative 100"):
        assert 2 * ours.wait(0.99) < reports[name].wait(0.99)
    assert ours.instance_seconds < 0.6 * reports["fixed 1"].instance_seconds


def test_a_caller_now_and_then_costs_no_more_than_its_idle_time() -> None:
    trace = sparse(1, seconds=300.0, per_second=5.0, work=awaiting)
    ours = play(trace)

    assert ours.wait(0.99) <= COLD_SECONDS + 0.01
    assert ours.instance_seconds <= len(trace) * 10.5


def test_where_a_start_takes_long_waiting_is_preferred_to_it() -> None:
    trace = bursts(1, seconds=60.0, per_second=50.0, work=awaiting)
    reports = compare(trace, cold_seconds=5.0, most=MOST)
    ours, eager = reports["measured"], reports["fixed 100"]

    assert ours.cold_starts < 0.75 * eager.cold_starts
    assert ours.instance_seconds < 0.75 * eager.instance_seconds
    assert ours.wait(0.99) < 1.5 * eager.wait(0.99)


def test_a_storm_of_starts_is_bounded() -> None:
    trace = [Request(0.0, 0.0, 5.0)] * 30
    limits = PoolLimits(deployment_burst=10, deployment_starts_per_second=10.0)
    report = play(trace, Measured(1, limits), most=100, cold_seconds=0.0)

    assert sorted(report.waits)[9] == 0.0  # the burst
    assert sorted(report.waits)[10] == pytest.approx(0.1, abs=0.01)
    assert max(report.waits) == pytest.approx(2.0, abs=0.01)


def test_at_three_times_the_load_the_queue_is_bounded_and_nothing_is_lost() -> None:
    def computing(_: random.Random) -> tuple[float, float]:
        return 0.01, 0.0

    capacity = 2 * 100  # a second, of two instances
    limits = PoolLimits(queue_length=100)
    trace = poisson(1, seconds=30.0, per_second=3.0 * capacity, work=computing)
    report = play(trace, Measured(100, limits), most=2)

    assert report.served + report.refused == report.requests
    assert report.refused > 0.5 * report.requests
    assert report.served > 0.8 * capacity * 30
    assert report.wait(0.99) < 2.0  # what waits and what is in flight, at the rate of two


def test_a_recorded_trace_can_be_played(tmp_path: Path) -> None:
    lines = [
        {"arrives": 1.0, "cpu_seconds": 0.0, "io_seconds": 0.5},
        {"arrives": 0.0, "cpu_seconds": 0.1, "io_seconds": 0.0},
    ]
    (tmp_path / "trace").write_text("\n".join(map(json.dumps, lines)))
    report = play(recorded(tmp_path / "trace"))

    assert (report.served, report.cold_starts) == (2, 1)
    assert report.waits[0] == pytest.approx(COLD_SECONDS)
