"""Deploying, promoting and rolling back through the control API."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import pytest

from fluvial_gateway.invoker_client import RefusedError
from fluvial_gateway.problems import ProblemError
from tests.integration.control.world import MAX_UPLOAD_BYTES, World, lines

Control = Callable[..., None]


def test_deploy_builds_registers_and_promotes(control: Control) -> None:
    async def scenario(world: World) -> None:
        answer = lines(await world.upload(b"one"))

        assert answer[0] == {"log": "installing nothing"}
        deployed = answer[-1]
        assert deployed["created"] is True
        assert deployed["url"] == "http://shop.localhost:8080"
        app = (await world.get("/v1/apps/shop")).json()
        assert app["production"] == deployed["deployment"]["deployment"]
        assert world.builder.archives == [b"one"]
        assert [path.name for path in world.blobs.iterdir()] == [hashlib.sha256(b"one").hexdigest()]

    control(scenario)


def test_deploy_makes_the_host_reachable(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()

        deployment = deployed["deployment"]["deployment"]
        for host in ("shop.localhost", "localhost", f"{deployment.replace('_', '-')}.localhost"):
            destination = world.hosts.find(host.encode())
            assert destination is not None
            assert destination.deployment == deployment

    control(scenario)


def test_second_identical_deploy_changes_nothing(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await world.deploy(b"same")
        second = await world.deploy(b"same")

        assert second["created"] is False
        assert second["deployment"] == first["deployment"]
        assert len((await world.get("/v1/deployments")).json()["deployments"]) == 1

    control(scenario)


def test_deploy_without_promote_leaves_the_alias(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await world.deploy(b"one")
        second = await world.deploy(b"two", promote="false")

        assert second["url"] == second["deployment"]["url"]
        app = (await world.get("/v1/apps/shop")).json()
        assert app["production"] == first["deployment"]["deployment"]

    control(scenario)


def test_promote_and_rollback_move_the_alias(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = (await world.deploy(b"one"))["deployment"]["deployment"]
        second = (await world.deploy(b"two"))["deployment"]["deployment"]

        back = await world.post("/v1/apps/shop/rollback")
        assert (back.json()["production"], back.json()["previous"]) == (first, second)
        forth = await world.post("/v1/apps/shop/promote", json={"deployment": second})
        assert forth.json()["production"] == second
        destination = world.hosts.find(b"shop.localhost")
        assert destination is not None
        assert destination.deployment == second

    control(scenario)


def test_rollback_without_a_past_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()

        response = await world.post("/v1/apps/shop/rollback")
        assert response.status_code == 409
        assert response.json()["code"] == "no_previous_deployment"

    control(scenario)


def test_promote_refuses_another_apps_deployment(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"one")
        other = (await world.deploy(b"two", name="other"))["deployment"]["deployment"]

        response = await world.post("/v1/apps/shop/promote", json={"deployment": other})
        assert response.status_code == 404
        assert response.json()["code"] == "deployment_not_found"

    control(scenario)


def _bundle_that_fails(world: World) -> None:
    world.builder.refusal = ProblemError("import_failed", "No module named 'x'")


def _keyring_that_fails(world: World) -> None:
    world.keyring.refusal = RefusedError("keyring", "unreadable")


def _name_of_a_deployment(world: World) -> None:
    world.builder.app = "dpl-x"


def _name_that_climbs(world: World) -> None:
    world.builder.app = "../etc"


@pytest.mark.parametrize(
    "break_it",
    [_bundle_that_fails, _keyring_that_fails, _name_of_a_deployment, _name_that_climbs],
)
def test_failed_deploy_changes_nothing(control: Control, break_it: Callable[[World], None]) -> None:
    async def scenario(world: World) -> None:
        before = await world.deploy(b"good")
        break_it(world)
        refused = await world.deploy(b"bad")

        assert "problem" in refused
        apps = (await world.get("/v1/apps")).json()["apps"]
        assert [app["production"] for app in apps] == [before["deployment"]["deployment"]]
        assert len((await world.get("/v1/deployments")).json()["deployments"]) == 1
        assert not list(world.blobs.glob(".upload-*"))

    control(scenario)


def test_upload_with_another_digest_is_refused_before_building(control: Control) -> None:
    async def scenario(world: World) -> None:
        response = await world.post(
            "/v1/deployments", content=b"x", headers={"x-fluvial-bundle-digest": "0" * 64}
        )

        assert response.status_code == 400
        assert response.json()["code"] == "digest_mismatch"
        assert world.builder.archives == []
        assert list(world.blobs.iterdir()) == []

    control(scenario)


def test_upload_above_the_limit_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        response = await world.upload(b"x" * (MAX_UPLOAD_BYTES + 1))

        assert response.status_code == 413
        assert response.json()["limit_bytes"] == MAX_UPLOAD_BYTES
        assert list(world.blobs.iterdir()) == []

    control(scenario)


def test_rollback_whose_answer_was_lost_happens_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = (await world.deploy(b"one"))["deployment"]["deployment"]
        await world.deploy(b"two")

        world.store.lost_answers = 1
        back = await world.post("/v1/apps/shop/rollback")

        assert back.status_code == 200
        assert back.json()["production"] == first

    control(scenario)


def test_deploy_that_may_have_moved_the_alias_keeps_its_record(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"one")
        world.store.lost_answers = 100
        problem = (await world.deploy(b"two"))["problem"]
        world.store.lost_answers = 0

        assert problem["code"] == "store_outcome_unknown"
        production = (await world.get("/v1/apps/shop")).json()["production"]
        assert (await world.get(f"/v1/deployments/{production}")).status_code == 200

    control(scenario)


def test_client_that_leaves_during_a_build_leaves_nothing(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.builder.go_on = asyncio.Event()
        deploying = asyncio.create_task(world.upload(b"abandoned"))
        await world.builder.building.wait()
        deploying.cancel()
        await asyncio.gather(deploying, return_exceptions=True)

        assert list(world.blobs.iterdir()) == []
        assert (await world.get("/v1/apps")).json() == {"apps": []}

    control(scenario)


def test_environment_values_are_never_shown(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()
        shown = await world.get(f"/v1/deployments/{deployed['deployment']['deployment']}")

        assert shown.json()["environment"] == []
        assert shown.json()["workflows"] == ["fulfil"]

    control(scenario)
