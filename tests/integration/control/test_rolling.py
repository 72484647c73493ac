"""Rollouts through the control API: stages, approvals, aborts, and what ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fluvial_gateway.hosts import Destination
from tests.integration.control.world import World

Control = Callable[..., None]
PATH = "/v1/apps/shop/rollout"
WAIT_SECONDS = 10.0


async def _two(world: World) -> tuple[str, str]:
    """Deploy two; the first one is production."""
    old = (await world.deploy(b"one"))["deployment"]["deployment"]
    new = (await world.deploy(b"two", promote="false"))["deployment"]["deployment"]
    return str(old), str(new)


async def _start(world: World, new: str, **more: Any) -> dict[str, Any]:
    body = {"deployment": new, "stages": [5, 50], **more}
    started: dict[str, Any] = (await world.post(PATH, json=body)).json()
    return started


async def _show(world: World) -> dict[str, Any]:
    shown: dict[str, Any] = (await world.get(PATH)).json()
    return shown


def _production(world: World) -> Destination:
    destination = world.hosts.find(b"shop.localhost")
    assert destination is not None
    return destination


def test_a_rollout_goes_from_stage_to_stage_to_production(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        assert (await _show(world))["state"] == "none"
        started = await _start(world, new)

        assert (started["state"], started["percent"], started["next_at"]) == ("active", 5, None)
        split = _production(world).split
        assert split is not None
        assert (_production(world).deployment, split.new.deployment) == (old, new)
        approved = (await world.post(f"{PATH}/approve")).json()
        assert (approved["stage"], approved["percent"], approved["production"]) == (1, 50, old)
        # runs that are started by name follow production, and that is the old one still
        run_id = await world.start([1])
        assert (await world.get(f"/v1/runs/{run_id}")).json()["deployment"] == old
        completed = (await world.post(f"{PATH}/approve")).json()
        assert (completed["state"], completed["production"]) == ("completed", new)
        assert (_production(world).deployment, _production(world).split) == (new, None)
        moves = (await world.get("/v1/apps/shop/history")).json()["moves"]
        assert (moves[0]["from"], moves[0]["to"], moves[0]["reason"]) == (old, new, "rollout")

    control(scenario)


def test_an_abort_sends_everybody_back_and_says_why(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        await _start(world, new)
        aborted = (await world.post(f"{PATH}/abort", json={"reason": "it is ugly"})).json()

        assert (aborted["state"], aborted["percent"], aborted["reason"]) == (
            *("aborted", 0),
            "it is ugly",
        )
        assert (_production(world).deployment, _production(world).split) == (old, None)
        assert new.encode() not in _production(world).pins
        assert (await world.post(f"{PATH}/abort")).json()["code"] == "rollout_not_active"
        assert (await world.post(f"{PATH}/approve")).json()["code"] == "rollout_not_active"

    control(scenario)


def test_a_new_deployment_that_fails_is_aborted_by_itself(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        await _start(world, new)
        split = _production(world).split
        assert split is not None
        for _ in range(5):
            split.counts.new.answered(500)
        shown = await _show(world)
        assert shown["new"] == {"answers": 5, "errors": 5}
        aborting = [t for t in asyncio.all_tasks() if t.get_name() == "abort shop"]
        await asyncio.wait(aborting, timeout=WAIT_SECONDS)

        assert _production(world).split is None
        shown = await _show(world)
        assert (shown["state"], shown["production"]) == ("aborted", old)
        assert shown["reason"].startswith("5 of 5 answers of the new deployment were errors")

    control(scenario)


def test_the_counts_go_on_from_stage_to_stage_and_begin_anew_with_a_rollout(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        _, new = await _two(world)
        await _start(world, new)
        split = _production(world).split
        assert split is not None
        split.counts.new.answered(200)
        await world.post(f"{PATH}/approve")
        assert (await _show(world))["new"]["answers"] == 1
        await world.post(f"{PATH}/abort")

        assert (await _start(world, new))["new"]["answers"] == 0

    control(scenario)


def test_stages_begin_when_they_are_due(control: Control) -> None:
    async def scenario(world: World) -> None:
        _, new = await _two(world)
        keeping = asyncio.ensure_future(world.rollouts.run())
        started = await _start(world, new, every="10ms")
        assert started["every_seconds"] == 0.01

        async with asyncio.timeout(WAIT_SECONDS):
            while (await _show(world))["state"] == "active":
                await asyncio.wait([keeping], timeout=0.01)
        assert (await _show(world))["production"] == new
        await world.rollouts.close()
        await keeping

    control(scenario)


def test_a_stage_that_was_begun_by_somebody_else_is_not_skipped(control: Control) -> None:
    async def scenario(world: World) -> None:
        _, new = await _two(world)
        await _start(world, new, every="1h")
        stale = (await world.catalogue.app("shop")).rollout
        await world.post(f"{PATH}/approve")
        assert stale is not None

        world.rollouts.heard([])  # what another gateway has read before
        app = await world.catalogue.app("shop")
        overdue = replace(stale, every_ms=0)
        world.rollouts.heard([replace(app, rollout=overdue)])
        keeping = asyncio.ensure_future(world.rollouts.run())
        await world.get(PATH)
        await world.rollouts.close()
        await keeping
        assert (await _show(world))["stage"] == 1

    control(scenario)


def test_a_move_of_production_ends_a_rollout(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        third = (await world.deploy(b"three", promote="false"))["deployment"]["deployment"]
        await _start(world, new)
        await world.post("/v1/apps/shop/promote", json={"deployment": third})
        shown = await _show(world)
        assert (shown["state"], shown["production"]) == ("aborted", third)
        assert "was moved to" in shown["reason"]

        await _start(world, new)
        await world.post("/v1/apps/shop/promote", json={"deployment": new})
        assert (await _show(world))["state"] == "completed"
        assert old

    control(scenario)


def test_a_rollback_during_a_rollout_undoes_the_rollout(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"zero")
        old, new = await _two(world)
        await _start(world, new)
        app = (await world.post("/v1/apps/shop/rollback")).json()

        assert (app["production"], app["rollout"]) == (old, None)
        assert (await _show(world))["reason"] == "rolled back by test"

    control(scenario)


def test_what_cannot_be_rolled_out_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        other = (await world.deploy(b"x", name="other"))["deployment"]["deployment"]

        assert (await _start(world, old))["code"] == "rollout_impossible"
        assert (await _start(world, other))["code"] == "deployment_not_found"
        await _start(world, new)
        assert (await _start(world, new))["code"] == "rollout_active"
        removed = (await world.client.delete(f"/v1/deployments/{new}")).json()
        assert (removed["code"], removed["aliases"]) == ("deployment_in_use", ["rollout"])

    control(scenario)


@pytest.mark.parametrize("stages", [[], [0], [100], [50, 5], [5, 5], list(range(1, 30))], ids=str)
def test_stages_are_rising_percentages(control: Control, stages: list[int]) -> None:
    async def scenario(world: World) -> None:
        _, new = await _two(world)
        response = await world.post(PATH, json={"deployment": new, "stages": stages})

        assert response.status_code == 400
        assert (await _show(world))["state"] == "none"

    control(scenario)


def test_clients_may_go_on_with_what_production_has_left_for_so_long(control: Control) -> None:
    async def scenario(world: World) -> None:
        old, new = await _two(world)
        preview = (await world.deploy(b"three", promote="false"))["deployment"]["deployment"]
        await world.post("/v1/apps/shop/promote", json={"deployment": new})

        assert set(_production(world).pins) == {old.encode(), new.encode()}
        assert preview.encode() not in _production(world).pins
        path = "/v1/apps/shop/settings"
        app = (await world.post(path, json={"pin_for": 0, "pin_cookie": True})).json()
        assert (app["pin_seconds"], app["pin_cookie"]) == (0, True)
        assert _production(world).pins == {}
        await world.post(path, json={"pin_for": "1h"})
        assert b"; Max-Age=3600; " in _production(world).tail
        assert set(_production(world).pins) == {old.encode(), new.encode()}
        await world.client.delete(f"/v1/deployments/{old}")
        assert set(_production(world).pins) == {new.encode()}
        refused = await world.post(path, json={"pin_for": "8d"})
        assert refused.status_code == 400

    control(scenario)
