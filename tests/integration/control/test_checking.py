"""Replay checks through the control API: which runs are checked, and what is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.checks import CheckReport
from fluvial.events import Event, EventType
from fluvial.invocations import Answer
from fluvial_gateway.auth import Scope
from fluvial_gateway.invocations import Answered, Lost, Unavailable
from fluvial_queue.contract import RunStatus
from fluvial_queue.views import pack_turn
from tests.integration.control.world import World, client_of, lines

Control = Callable[..., None]
STARTED = Event(EventType.RUN_STARTED, 1, 0, b"in", {"workflow": "fulfil"})
SET = Event(EventType.TIMER_SET, 2, 1, meta={"delay_ms": 9})
FIRED = Event(EventType.TIMER_FIRED, 3, 1)


async def _running(world: World) -> str:
    """Start a run that has taken one turn, and has an input that no turn has consumed."""
    run_id = await world.start()
    turn = pack_turn(1, b"12345678")
    await world.record(run_id, STARTED, SET, FIRED, status=RunStatus.RUNNING, turn=turn)
    return run_id


async def _check(world: World, deployment: str, **wanted: Any) -> list[dict[str, Any]]:
    response = await world.post(f"/v1/deployments/{deployment}/replay-check", json=wanted)
    assert response.status_code == 200, response.text
    return lines(response)


async def _next(world: World) -> str:
    """Register another deployment, and leave production where it is."""
    deployed = await world.deploy(b"next", promote="false")
    return str(deployed["deployment"]["deployment"])


def test_live_runs_are_checked_on_a_deployment_that_is_not_promoted(control: Control) -> None:
    async def scenario(world: World) -> None:
        production = (await world.deploy())["deployment"]["deployment"]
        runs = {await _running(world) for _ in range(6)}
        await world.finish(await world.start())
        deployment = await _next(world)
        found = await _check(world, deployment)

        assert {line["run"]["run_id"] for line in found[:-1]} == runs
        assert {line["run"]["finding"] for line in found[:-1]} == {"ok"}
        assert {line["run"]["deployment"] for line in found[:-1]} == {production}
        assert found[-1]["report"] == {
            "checked": 6,
            "ok": 6,
            "diverged": 0,
            "unchecked": 0,
            "with_warnings": 0,
            "is_complete": True,
        }
        assert {asked for asked, _ in world.invocations.checks} == {deployment}
        request = world.invocations.checks[0][1]
        assert (request.consumed, request.compares_values) == (1, False)
        assert request.events == [event.encode() for event in (STARTED, SET, FIRED)]
        assert (await world.catalogue.app("shop")).production == production

    control(scenario)


def test_what_is_found_about_each_run_is_told(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        deployment = await _next(world)
        told: dict[str, Any] = {
            "diverged": CheckReport(verdict="diverged", detail="- recorded"),
            "unreadable": CheckReport(verdict="unreadable", detail="its key is gone"),
            "warned": CheckReport(verdict="ok", warnings=["other arguments"]),
            "failed": Answered("ins_1", Answer(outcome="diverged"), 1),
            "garbled": Answered("ins_1", Answer(outcome="ok"), 1, ["?"]),
            "lost": Lost("ins_1", "instance_died"),
            "too large": Unavailable("too_large", "a body of 99 bytes", False),
            "busy": Unavailable("overloaded", "later", True),
        }
        runs = {name: await _running(world) for name in told}
        world.invocations.reports = {runs[name]: report for name, report in told.items()}
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        *found, last = await _check(world, deployment, inputs=True)

        by_run = {line["run"]["run_id"]: line["run"] for line in found}
        findings = {name: by_run[run_id]["finding"] for name, run_id in runs.items()}
        assert findings == {
            "diverged": "diverged",
            "warned": "ok",
            **dict.fromkeys(
                ["unreadable", "failed", "garbled", "lost", "too large", "busy"], "unchecked"
            ),
        }
        assert by_run[runs["diverged"]]["detail"] == "- recorded"
        assert by_run[runs["warned"]]["warnings"] == ["other arguments"]
        assert all(by_run[run_id]["detail"] for name, run_id in runs.items() if name != "warned")
        report = last["report"]
        counts = [report[key] for key in ("checked", "ok", "diverged", "unchecked")]
        assert (*counts, report["with_warnings"]) == (8, 1, 1, 6, 1)
        (audited,) = caplog.records
        assert (audited.__dict__["token_name"], audited.__dict__["about"]["diverged"]) == (
            "test",
            1,
        )

    control(scenario)


def test_the_last_runs_that_have_ended_may_be_checked_instead(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        ended = [await world.start() for _ in range(4)]
        for run_id in ended:
            await world.finish(run_id)
        await _running(world)
        *found, last = await _check(world, await _next(world), scope={"last": 3})

        assert {line["run"]["run_id"] for line in found} <= set(ended)
        assert (len(found), last["report"]["is_complete"]) == (3, True)

    control(scenario)


def test_a_limit_that_leaves_runs_out_says_so(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        for _ in range(3):
            await _running(world)
        deployment = await _next(world)
        *some, cut = await _check(world, deployment, limit=2)
        *every, whole = await _check(world, deployment, limit=3)

        assert (len(some), cut["report"]["is_complete"]) == (2, False)
        assert (len(every), whole["report"]["is_complete"]) == (3, True)

    control(scenario)


def test_runs_of_a_workflow_that_is_gone_are_not_checked(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await _running(world)
        world.builder.workflows = ("renamed",)
        deployment = await _next(world)
        found, report = await _check(world, deployment)

        assert found["run"]["finding"] == "unchecked"
        assert "no workflow 'fulfil'" in found["run"]["detail"]
        assert report["report"]["unchecked"] == 1
        assert world.invocations.checks == []
        assert await _check(world, deployment, workflow="renamed") == [
            {"report": {**report["report"], "checked": 0, "unchecked": 0}}
        ]

    control(scenario)


def test_a_run_that_has_not_begun_cannot_diverge(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start()
        found, _ = await _check(world, await _next(world))

        assert found["run"]["finding"] == "ok"
        assert world.invocations.checks == []

    control(scenario)


def test_a_log_that_is_too_large_is_not_checked(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fluvial_gateway.replay_checks.MAX_LOG_BYTES", 10)

    async def scenario(world: World) -> None:
        await world.deploy()
        await _running(world)
        found, _ = await _check(world, await _next(world))

        assert found["run"]["finding"] == "unchecked"
        assert "more than 10 bytes" in found["run"]["detail"]

    control(scenario)


def test_a_deployment_that_cannot_be_started_ends_the_check(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        deployment = await _next(world)
        for _ in range(6):
            refused = Unavailable("import_failed", "NameError in main.py", False)
            world.invocations.reports[await _running(world)] = refused
        (last,) = await _check(world, deployment)

        assert last["problem"]["code"] == "import_failed"
        assert "NameError" in last["problem"]["detail"]

    control(scenario)


def test_a_client_that_goes_away_stops_the_checks(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await _running(world)
        deployment = await _next(world)
        world.invocations.is_silent = True
        asked = asyncio.create_task(_check(world, deployment))
        while not world.invocations.checks:  # noqa: ASYNC110 - a few loop turns later there is one
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

        assert world.invocations.handle.cancelled == "client_gone"
        world.invocations.is_silent = False
        for _ in range(8):  # its place is free again
            assert len(await _check(world, deployment)) == 2

    control(scenario)


def test_reports_at_a_time_are_bounded(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await _running(world)
        deployment = await _next(world)
        world.invocations.is_silent = True
        tasks = [asyncio.create_task(_check(world, deployment)) for _ in range(4)]
        while len(world.invocations.checks) < 4:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)
        (refused,) = await _check(world, deployment)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        assert refused["problem"]["code"] == "too_many_waits"

    control(scenario)


def test_a_check_needs_the_right_to_deploy(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployment = (await world.deploy())["deployment"]["deployment"]
        token = await world.tokens.create("reader", [Scope.RUNS_READ])
        async with client_of(world, token) as reader:
            refused = await reader.post(f"/v1/deployments/{deployment}/replay-check")
        unknown = await world.post(f"/v1/deployments/dpl_{'0' * 24}/replay-check")

        assert refused.status_code == 403
        assert unknown.json()["code"] == "deployment_not_found"

    control(scenario)


@pytest.mark.parametrize("scope", ["dead", {"last": 0}, {"first": 3}, 7])
def test_a_scope_is_checked(control: Control, scope: Any) -> None:
    async def scenario(world: World) -> None:
        deployment = (await world.deploy())["deployment"]["deployment"]
        wanted = {"scope": scope}
        refused = await world.post(f"/v1/deployments/{deployment}/replay-check", json=wanted)

        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")

    control(scenario)
