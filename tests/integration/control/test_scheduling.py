"""Crons through the control API: list, show, preview, pause, resume, trigger."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from fluvial.crons import Cron, specified
from fluvial_gateway.auth import Scope
from tests.integration.control.world import World

Control = Callable[..., None]
NIGHTLY = specified(
    Cron("0 3 * * *", name="nightly", timezone="Europe/Berlin", args=["eu"], overlap="queue"),
    "fulfil",
)
OFTEN = specified(Cron("@every 10m", name="often"), "fulfil")
PATH = "/v1/apps/shop/crons/nightly"


async def deploy(world: World, *crons: Any, archive: bytes = b"archive") -> str:
    world.builder.crons = crons
    return str((await world.deploy(archive))["deployment"]["deployment"])


def test_crons_are_listed_with_their_next_tick(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployment = await deploy(world, NIGHTLY, OFTEN)
        shown = (await world.get(f"/v1/deployments/{deployment}")).json()
        assert shown["crons"] == ["nightly", "often"]

        nightly, often = (await world.get("/v1/crons")).json()["crons"]
        assert (nightly["app"], nightly["cron"], nightly["workflow"]) == (
            "shop",
            "nightly",
            "fulfil",
        )
        assert (nightly["schedule"], nightly["timezone"]) == ("0 3 * * *", "Europe/Berlin")
        assert (nightly["args"], nightly["overlap"], nightly["paused"]) == (["eu"], "queue", False)
        assert (nightly["last_run"], nightly["last_outcome"], nightly["recent"]) == (None, None, [])
        next_tick = datetime.fromisoformat(often["next_tick"])
        assert (next_tick.minute % 10, next_tick.second) == (0, 0)
        assert (await world.get(PATH)).json() == nightly
        assert (await world.get("/v1/crons", params={"app": "shop"})).json()["crons"][0] == nightly

    control(scenario)


def test_the_next_ticks_are_previewed(control: Control) -> None:
    async def scenario(world: World) -> None:
        await deploy(world, NIGHTLY, OFTEN)
        answer = (await world.get("/v1/apps/shop/crons/often/ticks", params={"limit": 3})).json()
        first, second, third = map(datetime.fromisoformat, answer["ticks"])
        assert (second - first, third - second) == (second - first,) * 2
        assert (third - first).total_seconds() == 1200
        assert len((await world.get(f"{PATH}/ticks")).json()["ticks"]) == 5

    control(scenario)


def test_a_pause_shows_and_ends_with_a_resume(control: Control) -> None:
    async def scenario(world: World) -> None:
        await deploy(world, NIGHTLY)
        paused = (await world.post(f"{PATH}/pause")).json()
        assert (paused["paused"], paused["next_tick"]) == (True, None)
        assert (await world.get(PATH)).json() == paused
        assert world.cron_changes == 0

        resumed = (await world.post(f"{PATH}/resume")).json()
        assert resumed["paused"] is False
        assert resumed["next_tick"] is not None
        assert world.cron_changes == 1

    control(scenario)


def test_a_trigger_starts_a_run_that_says_what_for(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        deployment = await deploy(world, NIGHTLY)
        headers = {"idempotency-key": "k"}
        answers = [await world.post(f"{PATH}/trigger", headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        first, second = (answer.json() for answer in answers)
        assert (first["outcome"], second["outcome"]) == ("accepted", "duplicate")
        assert first["run_id"] == second["run_id"]

        run = (await world.get(f"/v1/runs/{first['run_id']}")).json()
        assert (run["deployment"], run["cron"]["name"]) == (deployment, "nightly")
        assert (await world.get(PATH)).json()["last_run"] == first["run_id"]
        assert (await world.get(PATH)).json()["recent"][0]["outcome"] == "triggered"
        other = await world.start()
        assert (await world.get(f"/v1/runs/{other}")).json()["cron"] is None

    with caplog.at_level(logging.INFO, "fluvial_gateway.audit"):
        control(scenario)
    audited = [r.__dict__ for r in caplog.records if "audit" in r.name]
    assert [line["operation"] for line in audited].count("triggerCron") == 2


def test_crons_move_with_the_alias(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await deploy(world, NIGHTLY, archive=b"one")
        since = (await world.get(PATH)).json()["active_since"]
        await deploy(world, NIGHTLY, OFTEN, archive=b"two")
        assert (await world.get(PATH)).json()["active_since"] == since
        assert (await world.get("/v1/apps/shop/crons/often")).status_code == 200

        await world.post("/v1/apps/shop/rollback")
        assert (await world.get(PATH)).json()["deployment"] == first
        gone = await world.get("/v1/apps/shop/crons/often")
        assert (gone.status_code, gone.json()["code"]) == (404, "cron_not_found")
        assert "it has: nightly" in gone.json()["detail"]

    control(scenario)


def test_a_deploy_with_other_crons_is_another_deployment(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await deploy(world, NIGHTLY)
        assert await deploy(world, NIGHTLY) == first
        assert await deploy(world, OFTEN) != first

    control(scenario)


@pytest.mark.parametrize("action", ["", "/ticks", "/pause", "/resume", "/trigger"])
def test_what_is_not_there_is_a_404(control: Control, action: str) -> None:
    async def scenario(world: World) -> None:
        await deploy(world, NIGHTLY)
        method = "GET" if action in ("", "/ticks") else "POST"
        for path, code in (
            (f"/v1/apps/shop/crons/nonesuch{action}", "cron_not_found"),
            (f"/v1/apps/other/crons/nightly{action}", "app_not_found"),
        ):
            answer = await world.client.request(method, path)
            assert (answer.status_code, answer.json()["code"]) == (404, code)
        wrong = await world.client.request(method, f"/v1/apps/shop/crons/a%2Fb{action}")
        assert wrong.status_code in (400, 404)

    control(scenario)


def test_a_lost_answer_of_the_store_does_not_trigger_twice(control: Control) -> None:
    async def scenario(world: World) -> None:
        await deploy(world, NIGHTLY)
        world.store.lost_answers = 2  # of the start, and of the record's change
        started = (await world.post(f"{PATH}/trigger")).json()
        again = (await world.post(f"{PATH}/trigger")).json()
        runs = (await world.get("/v1/runs")).json()["runs"]
        assert {run["run_id"] for run in runs} == {started["run_id"], again["run_id"]}
        assert (await world.get(PATH)).json()["counts"] == {"triggered": 2}

    control(scenario)


def test_who_may_only_read_changes_nothing(control: Control) -> None:
    async def scenario(world: World) -> None:
        assert (await world.get("/v1/crons")).status_code == 200
        assert (await world.post(f"{PATH}/pause")).status_code == 403

    control(scenario, Scope.RUNS_READ)
