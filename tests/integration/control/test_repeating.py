"""Forks and reruns through the API: what is asked, answered, refused, and written down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.invocations import Answer
from fluvial_gateway.invocations import Answered, Lost, Outcome, Unavailable
from fluvial_queue.contract import RunStatus
from tests.integration.control.world import World

Control = Callable[..., None]


async def _broken(world: World) -> str:
    """Return a run of which three steps were executed; the last one has failed."""
    run_id = await world.start({"args": ["in"], "tags": {"team": "a"}, "priority": 3})
    record = await world.runs.get(run_id)
    keys = world.keyring.of("shop").for_run(run_id)
    events = [Event(EventType.RUN_STARTED, 1, 0, record.input, {"workflow": "fulfil"})]
    for number, name in enumerate(["charge", "charge", "ship"], 1):
        arguments = keys.seal(b"n", "step_input", number)
        events.append(Event(EventType.STEP_SCHEDULED, 1, number, arguments, {"name": name}))
        if name == "charge":
            result = keys.seal(b"n", "step_result", number)
            events.append(Event(EventType.STEP_COMPLETED, 1, number, result, {"attempt": 1}))
    error = keys.seal(b"n", "step_error", 3, 1)
    events.append(Event(EventType.STEP_FAILED, 1, 3, error, {"attempt": 1}))
    await world.record(
        run_id,
        *events,
        Event(EventType.RUN_FAILED, 9, 0, b"", {"reason": "step_failed"}),
        status=RunStatus.FAILED,
    )
    return run_id


@pytest.mark.parametrize(
    ("how", "body", "kept"),
    [
        ("retry-failed", None, 5),
        ("fork", {"from": 3}, 5),
        ("fork", {"from": "ship"}, 5),
        ("fork", {"from": 2}, 3),
        ("fork", {"from": 0}, 1),
    ],
)
def test_a_fork_begins_with_what_was_kept(
    control: Control, how: str, body: Any, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        response = await world.post(f"/v1/runs/{origin}/{how}", json=body)

        assert response.status_code == 202, response.text
        run_id = response.json()["run_id"]
        shown = (await world.get(f"/v1/runs/{run_id}")).json()
        assert (shown["origin"], shown["events"], shown["priority"]) == (origin, kept, 3)
        assert shown["tags"] == {"team": "a"}
        audited = caplog.records[-1].__dict__
        assert audited["operation"] == ("forkRun" if how == "fork" else "retryFailedStep")
        assert audited["about"] == {
            "id": origin,
            "app": "shop",
            "run_id": run_id,
            "start": "accepted",
        }
        assert (await world.runs.get(run_id)).meta["by"] == "test"

    control(scenario)


@pytest.mark.parametrize(
    ("how", "body", "status", "code", "detail"),
    [
        ("fork", {"from": 9}, 404, "step_not_found", "no step 9; its steps: 1 charge, 2 charge"),
        ("fork", {"from": "pay"}, 404, "step_not_found", "no step named 'pay'"),
        ("fork", {"from": "charge"}, 409, "step_ambiguous", "several steps named 'charge'"),
        ("fork", {}, 400, "invalid_request", "the member 'from' is missing"),
        ("fork", {"from": -1}, 400, "invalid_request", "body.from: is -1"),
        ("fork", {"from": True}, 400, "invalid_request", "body.from"),
        ("fork", {"from": 1, "deployment": "x"}, 400, "invalid_request", "body.deployment"),
        ("rerun", {"args": {}}, 400, "invalid_request", "body.args: expected array"),
        ("rerun", {"deployment": "dpl_" + "0" * 24}, 404, "deployment_not_found", "no deployment"),
    ],
)
def test_what_cannot_be_repeated_is_told(
    control: Control, how: str, body: Any, status: int, code: str, detail: str
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        response = await world.post(f"/v1/runs/{origin}/{how}", json=body)
        problem = response.json()

        assert (response.status_code, problem["code"]) == (status, code)
        assert detail in problem["detail"]
        if code.startswith("step_"):
            assert {"id": 1, "name": "charge"} in problem["steps"]
        assert len((await world.get("/v1/runs")).json()["runs"]) == 1

    control(scenario)


def test_a_run_without_a_failed_step_has_none_to_retry(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        pending, ended = await world.start(), await world.start()
        await world.finish(ended)
        none = await world.post(f"/v1/runs/{ended}/retry-failed")
        early = await world.post(f"/v1/runs/{pending}/retry-failed")

        assert (none.status_code, none.json()["code"]) == (409, "no_failed_step")
        assert (early.status_code, early.json()["code"]) == (409, "run_not_begun")

    control(scenario)


@pytest.mark.parametrize("how", ["fork", "retry-failed", "rerun"])
def test_a_repetition_with_the_same_key_is_the_same_run(control: Control, how: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        path = f"/v1/runs/{origin}/{how}"
        body: dict[str, Any] = {"from": 2} if how == "fork" else {}
        headers = {"idempotency-key": "k"}
        first = (await world.post(path, json=body, headers=headers)).json()
        second = (await world.post(path, json=body, headers=headers)).json()
        body["deployment"] = "latest"
        other = await world.post(path, json=body, headers=headers)

        assert (first["outcome"], second["outcome"]) == ("accepted", "duplicate")
        assert first["run_id"] == second["run_id"] == other.json()["run_id"]
        assert (other.status_code, other.json()["code"]) == (409, "start_conflict")

    control(scenario)


def test_a_rerun_has_the_same_input_sealed_for_it_or_another(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        same = (await world.post(f"/v1/runs/{origin}/rerun")).json()["run_id"]
        body: dict[str, Any] = {"args": [], "kwargs": {"n": 1}}
        other = (await world.post(f"/v1/runs/{origin}/rerun", json=body)).json()["run_id"]

        records = [await world.runs.get(run_id) for run_id in (same, other)]
        inputs = [world.opened(record.run_id, "input", record.input) for record in records]
        assert inputs == [b'j["in"]', b'j{"args":[],"kwargs":{"n":1}}']
        assert {record.meta["rerun_of"] for record in records} == {origin}
        shown = (await world.get(f"/v1/runs/{same}")).json()
        assert (shown["rerun_of"], shown["tags"]) == (origin, {"team": "a"})
        assert len(world.invocations.resealed) == 1  # what is given needs no instance

    control(scenario)


def test_the_deployment_that_is_named_seals_and_runs(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        fixed = (await world.deploy(b"fixed"))["deployment"]["deployment"]
        path = f"/v1/runs/{origin}/retry-failed"
        run_id = (await world.post(path, json={"deployment": "latest"})).json()["run_id"]

        assert (await world.runs.get(run_id)).deployment == fixed
        assert world.invocations.resealed == [fixed]

    control(scenario)


@pytest.mark.parametrize("outcome", ["blocked", "lost", "unavailable", "broken"])
def test_a_deployment_that_does_not_seal_is_told(control: Control, outcome: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        origin = await _broken(world)
        outcomes: dict[str, Outcome] = {
            "blocked": Answered("ins_1", Answer(outcome="blocked"), 1),
            "lost": Lost("ins_1", "instance_died"),
            "unavailable": Unavailable("overloaded", "full", True),
            "broken": Unavailable("import_failed", "a module is missing", False),
        }
        world.invocations.outcome = outcomes[outcome]
        response = await world.post(f"/v1/runs/{origin}/fork", json={"from": 0})

        expected = (503, "unavailable") if outcome == "unavailable" else (502, "not_resealed")
        assert (response.status_code, response.json()["code"]) == expected
        assert len((await world.get("/v1/runs")).json()["runs"]) == 1

    control(scenario)
