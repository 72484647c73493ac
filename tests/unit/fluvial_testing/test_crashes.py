"""Crash-point enumeration plays a scenario with every fault at every durable point."""

from __future__ import annotations

import asyncio
from typing import Any, cast, get_args

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.testing import (
    CrashPointError,
    Environment,
    Fault,
    Mode,
    PlannedFault,
    SyncEnvironment,
    enumerate_crashes,
)
from fluvial_queue.kit import open_engine
from tests.unit.fluvial_testing.shop import (
    Approval,
    again,
    basket,
    charge,
    charge_twice_perhaps,
    fulfil,
    naive,
    open_books,
    patient,
)


async def order(env: Environment) -> tuple[str, list[tuple[str, Any]]]:
    ledger = open_books()
    run = await env.start(fulfil, "o-1", 4200)
    await env.until(run, hook="order:o-1")
    await env.resume("order:o-1", Approval(True), resume_id="r")
    return await run.result(), ledger.effects


def test_a_careful_workflow_comes_to_the_same_whatever_breaks(mode: Mode) -> None:
    report = asyncio.run(enumerate_crashes(order, mode=mode, engine=open_engine))

    assert report.outcome == ("shipped o-1", [("charge", "ch_o-1")])
    assert report.points >= 20
    assert report.plays == 2 * report.points
    assert str(report) == (
        f"{report.points} points, {report.plays} plays with a fault: the same outcome each time"
    )


def test_any_order_of_events_can_be_enumerated() -> None:
    report = asyncio.run(enumerate_crashes(order, seed=1, engine=open_engine))

    assert report.outcome[0] == "shipped o-1"


def test_a_workflow_can_stand_for_a_scenario() -> None:
    report = asyncio.run(enumerate_crashes(patient, engine=open_engine))

    assert report.outcome == "2031-01-01"


async def shopping(env: Environment) -> tuple[int, str, list[str]]:
    children, continued = await env.start(basket, 2), await env.start(again, 2)
    outcome = await children.result(), await continued.result()
    return *outcome, [run.status for run in await env.runs()]


def test_children_and_continued_runs_come_to_the_same_whatever_breaks(mode: Mode) -> None:
    report = asyncio.run(enumerate_crashes(shopping, mode=mode, engine=open_engine))

    assert report.outcome[:2] == (2, "done")
    assert sorted(report.outcome[2]) == ["completed"] * 6


async def charging(env: Environment) -> tuple[str, dict[str, int]]:
    ledger = open_books()
    return await (await env.start(naive, "o-1")).result(), ledger.summary()


def test_a_step_that_is_not_idempotent_is_found_out() -> None:
    with pytest.raises(CrashPointError) as caught:
        asyncio.run(enumerate_crashes(charging, engine=open_engine))

    message = str(caught.value)
    assert message.startswith("duplicate at point 5, dispatch of shop.charge_twice_perhaps (1, ")
    assert "without: ('ch_o-1', {'charge': 1})" in message
    assert "with:    ('ch_o-1', {'charge': 2})" in message
    assert "ATTEMPT_LOST" in message
    assert "does not know" in message


def test_an_outcome_is_not_changed_by_what_comes_later() -> None:
    charges: list[str] = []

    async def scenario(env: Environment) -> list[str]:
        charges.clear()
        env.mock(charge_twice_perhaps, does=charges.append)
        await (await env.start(naive, "o-1")).result()
        return charges

    with pytest.raises(CrashPointError, match=r"without: \['o-1'\]"):
        asyncio.run(enumerate_crashes(scenario, engine=open_engine))


@pytest.mark.parametrize("fault", get_args(Fault))
def test_each_fault_can_be_enumerated_alone(fault: Fault) -> None:
    report = asyncio.run(enumerate_crashes(order, faults={fault}, engine=open_engine))

    assert 0 < report.plays <= report.points


def test_a_fault_that_is_not_known_is_refused() -> None:
    faults = cast("set[Fault]", {"fire"})

    with pytest.raises(InvalidRequestError, match="crash"):
        asyncio.run(enumerate_crashes(order, faults=faults, engine=open_engine))


def test_a_scenario_that_differs_each_time_is_refused() -> None:
    outcomes = iter(range(100))

    async def scenario(env: Environment) -> int:
        await (await env.start(patient)).result()
        return next(outcomes)

    with pytest.raises(CrashPointError, match="without any fault"):
        asyncio.run(enumerate_crashes(scenario, engine=open_engine))


def test_a_scenario_that_goes_elsewhere_each_time_is_refused() -> None:
    counts = iter([1, 2, 3])

    async def scenario(env: Environment) -> None:
        for _ in range(next(counts)):
            await (await env.start(patient)).result()

    with pytest.raises(CrashPointError, match="passes other points"):
        asyncio.run(enumerate_crashes(scenario, engine=open_engine))


def test_an_error_without_faults_is_the_scenarios_own() -> None:
    async def scenario(env: Environment) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        asyncio.run(enumerate_crashes(scenario, engine=open_engine))


def test_an_error_that_a_fault_brings_about_is_found() -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(fulfil, "o-1", 1)
        await env.until(run, hook="order:o-1")
        assert len(env.calls(charge)) == 1

    with pytest.raises(CrashPointError, match="AssertionError"):
        asyncio.run(enumerate_crashes(scenario, engine=open_engine))


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("crash", "everything in memory is lost"),
        ("duplicate", "loses its lease, and does not know"),
        ("lost_answer", "the answer of shop.reserve (2, attempt 1) is lost"),
        ("lost_reply", "the reply is lost"),
    ],
)
def test_a_planned_fault_happens(fault: Fault, line: str) -> None:
    with SyncEnvironment(engine=open_engine) as env:
        env.start(fulfil, "o-1", 1).result()
        points = env.env.points
    kind = {"lost_answer": "answer", "lost_reply": "commit"}.get(fault, "dispatch")
    point = next(
        p for p in points if p.kind == kind and ("reserve" in p.what or fault == "lost_reply")
    )

    planned = PlannedFault(point.number, fault)
    with SyncEnvironment(engine=open_engine, fault=planned) as env:
        assert env.start(fulfil, "o-1", 1).result() == "expired"
        assert env.env.engine.fault_was_hit
        history = list(env.history)

    assert any(line in entry for entry in history)
