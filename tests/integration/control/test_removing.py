"""Deleting deployments: refused while something needs them, complete where nothing does."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.ids import new_run_id
from fluvial_gateway.janitor import CLEANING_SECONDS, RETIRING_SECONDS, ROUND_SECONDS
from fluvial_queue.contract import RunStatus, StartOutcome, StartRun
from tests.integration.control.world import World

Control = Callable[..., None]


async def _deployed(world: World, archive: bytes, **query: Any) -> str:
    return str((await world.deploy(archive, **query))["deployment"]["deployment"])


async def _two(world: World) -> tuple[str, str]:
    return await _deployed(world, b"one"), await _deployed(world, b"two")


async def _delete(world: World, deployment: str, **query: Any) -> dict[str, Any]:
    response = await world.client.delete(f"/v1/deployments/{deployment}", params=query)
    document: dict[str, Any] = response.json()
    return document


async def _ids(world: World) -> set[str]:
    found = (await world.get("/v1/deployments")).json()["deployments"]
    return {deployment["deployment"] for deployment in found}


def _unpack(world: World, archive: bytes) -> None:
    bundle = world.blobs.parent / "bundles" / hashlib.sha256(archive).hexdigest()
    (bundle / "package").mkdir(parents=True)
    (bundle / "package" / "main.py").write_text("")


def test_a_deployment_that_nothing_needs_goes_with_its_files(control: Control) -> None:
    async def scenario(world: World) -> None:
        first, second = await _two(world)
        for archive in (b"one", b"two"):
            _unpack(world, archive)

        assert (await _delete(world, first))["state"] == "deleted"
        assert await _ids(world) == {second}
        assert world.hosts.find(f"{first.replace('_', '-')}.localhost".encode()) is None
        assert (await world.get(f"/v1/deployments/{first}")).status_code == 404
        assert await world.janitor.round() == ROUND_SECONDS
        kept = [hashlib.sha256(b"two").hexdigest()]
        assert [path.name for path in world.blobs.iterdir()] == kept
        assert [path.name for path in (world.blobs.parent / "bundles").iterdir()] == kept
        assert await world.store.list_records("removed") == []

    control(scenario)


def test_files_that_another_deployment_has_stay(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"same")
        await _deployed(world, b"other")
        await _deployed(world, b"same", name="twin")

        await _delete(world, first)
        await world.janitor.round()
        names = {path.name for path in world.blobs.iterdir()}
        assert hashlib.sha256(b"same").hexdigest() in names

    control(scenario)


@pytest.mark.parametrize("alias", ["production", "staging"])
def test_a_deployment_on_which_an_alias_stands_stays(control: Control, alias: str) -> None:
    async def scenario(world: World) -> None:
        first, second = await _two(world)
        await world.post("/v1/apps/shop/aliases/staging", json={"deployment": first})
        standing = second if alias == "production" else first

        refused = await _delete(world, standing, force=True, when_unused=True)
        assert (refused["code"], refused["aliases"]) == ("deployment_in_use", [alias])
        assert await _ids(world) == {first, second}

    control(scenario)


def test_a_deployment_that_a_live_run_needs_stays_whatever_is_forced(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        run_id = await world.start([1])
        await _deployed(world, b"two")

        refused = await _delete(world, first, force=True)
        assert (refused["code"], refused["status"]) == ("deployment_in_use", 409)
        assert (refused["runs"], refused["live_runs"]) == ([run_id], 1)
        assert f"fluvial runs ls --app shop --deployment {first}" in refused["detail"]
        listed = (await world.get("/v1/runs", params={"deployment": first})).json()["runs"]
        assert [run["run_id"] for run in listed] == [run_id]
        # as it was: it takes new runs, and is reached
        body = {"args": [2], "deployment": first}
        started = await world.post("/v1/apps/shop/workflows/fulfil/runs", json=body)
        assert started.status_code == 202
        assert world.hosts.find(f"{first.replace('_', '-')}.localhost".encode()) is not None

    control(scenario)


def test_ended_runs_keep_their_deployment_unless_it_is_forced(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        run_id = await world.start([1])
        second = await _deployed(world, b"two")
        await world.finish(run_id)

        refused = await _delete(world, first)
        assert (refused["code"], refused["ended_runs"]) == ("deployment_in_use", 1)
        assert "--force" in refused["detail"]
        assert (await _delete(world, first, force=True))["state"] == "deleted"
        # what it did is still read, by the app's production
        shown = (await world.get(f"/v1/runs/{run_id}", params={"data": "true"})).json()
        assert (shown["deployment"], shown["result"]) == (first, "done")
        assert await _ids(world) == {second}

    control(scenario)


def test_a_retiring_deployment_takes_nothing_new_and_goes_after_its_last_run(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        run_id = await world.start([1])
        second = await _deployed(world, b"two")

        answer = await _delete(world, first, force=True, when_unused=True)
        assert (answer["state"], answer["runs"]) == ("retiring", [run_id])
        assert (await world.get(f"/v1/deployments/{first}")).json()["state"] == "retiring"
        body = {"args": [2], "deployment": first}
        started = await world.post("/v1/apps/shop/workflows/fulfil/runs", json=body)
        assert started.json()["code"] == "deployment_retiring"
        for path in ("promote", "rollback", "aliases/qa"):
            moved = await world.post(f"/v1/apps/shop/{path}", json={"deployment": first})
            assert moved.json()["code"] == "deployment_retiring"
        assert world.hosts.find(f"{first.replace('_', '-')}.localhost".encode()) is None
        assert await world.janitor.round() == RETIRING_SECONDS
        assert await _ids(world) == {first, second}
        await world.finish(run_id)
        assert await world.janitor.round() == ROUND_SECONDS
        assert await _ids(world) == {second}
        assert (await world.get("/v1/apps/shop")).json()["retiring"] == []

    control(scenario)


def test_a_retiring_deployment_can_be_kept_after_all(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        run_id = await world.start([1])
        await _deployed(world, b"two")
        await _delete(world, first, when_unused=True)

        # refused meanwhile, it stays as it was: retiring
        assert (await _delete(world, first))["code"] == "deployment_in_use"
        assert (await world.get("/v1/apps/shop")).json()["retiring"] == [first]
        kept = await world.post(f"/v1/deployments/{first}/keep")
        assert kept.json()["state"] == "ready"
        await world.finish(run_id)
        await world.janitor.round()
        moved = await world.post("/v1/apps/shop/promote", json={"deployment": first})
        assert moved.json()["production"] == first

    control(scenario)


def test_a_run_that_goes_on_meanwhile_keeps_its_deployment(control: Control) -> None:
    """What is started between the look and the deletion is seen, though not by the look."""

    async def scenario(world: World) -> None:
        first, _ = await _two(world)
        look = world.store.deployment_uses

        async def look_too_early(deployments: Any) -> Any:
            uses = await look(deployments)
            run = StartRun(
                run_id=new_run_id(world.store.partitions),
                app="shop",
                workflow="fulfil",
                deployment=first,
                input=b"",
                is_carried=True,
            )
            assert await world.store.start(run) is StartOutcome.ACCEPTED
            return uses

        world.store.deployment_uses = look_too_early  # type: ignore[method-assign] # this once
        refused = await _delete(world, first)
        assert refused["code"] == "deployment_in_use"
        assert first in await _ids(world)

    control(scenario)


def test_a_removal_that_was_broken_off_is_finished_by_the_janitor(control: Control) -> None:
    async def scenario(world: World) -> None:
        first, second = await _two(world)
        world.store.lost_answers = 30  # the record says retiring, and the request fails
        assert (await _delete(world, first))["code"] == "store_outcome_unknown"
        world.store.lost_answers = 0

        assert (await world.get("/v1/apps/shop")).json()["retiring"] == [first]
        await world.janitor.round()
        assert await _ids(world) == {second}

    control(scenario)


def test_files_wait_for_instances_to_end_and_for_deploys_to_be_over(control: Control) -> None:
    async def scenario(world: World) -> None:
        first, _ = await _two(world)
        _unpack(world, b"one")
        bundle = world.blobs.parent / "bundles" / hashlib.sha256(b"one").hexdigest()
        world.fleet.instances.append({"instance": "ins_1", "deployment": first})
        await _delete(world, first)

        assert await world.janitor.round() == CLEANING_SECONDS
        assert (world.fleet.killed, bundle.is_dir()) == (["ins_1"], True)
        world.fleet.instances.clear()
        world.builder.go_on = asyncio.Event()
        world.builder.building.clear()
        deploying = asyncio.ensure_future(world.deploy(b"one"))  # the same bytes again
        await world.builder.building.wait()
        assert await world.janitor.round() == CLEANING_SECONDS
        assert bundle.is_dir()
        world.builder.go_on.set()
        await deploying
        await world.janitor.round()
        assert bundle.is_dir()  # the new deployment has it

    control(scenario)


def test_old_deployments_go_by_themselves_where_nothing_needs_them(control: Control) -> None:
    async def scenario(world: World) -> None:
        aliased, ran, unused, previous, production = [
            await _deployed(world, archive) for archive in (b"1", b"2", b"3", b"4", b"5")
        ]
        await world.post("/v1/apps/shop/aliases/qa", json={"deployment": aliased})
        body = {"args": [2], "deployment": ran}
        await world.post("/v1/apps/shop/workflows/fulfil/runs", json=body)
        settings = {"keep_deployments": 1, "keep_deployments_for": "0s"}
        await world.post("/v1/apps/shop/settings", json=settings)
        await world.janitor.round()  # clients may still go on with those that were production
        assert unused in await _ids(world)
        settings["pin_for"] = 0
        app = (await world.post("/v1/apps/shop/settings", json=settings)).json()
        assert (app["keep_deployments"], app["keep_deployments_seconds"]) == (1, 0)
        await world.janitor.round()

        assert await _ids(world) == {aliased, ran, previous, production}
        assert unused not in await _ids(world)
        assert (await world.get("/v1/apps/shop")).json()["retiring"] == []
        body = {"args": [3], "deployment": ran}  # it was looked at, and is as before
        started = await world.post("/v1/apps/shop/workflows/fulfil/runs", json=body)
        assert started.status_code == 202

    control(scenario)


def test_a_setting_that_is_not_named_stays_and_null_is_the_platforms(control: Control) -> None:
    async def scenario(world: World) -> None:
        await _two(world)
        path = "/v1/apps/shop/settings"
        await world.post(path, json={"keep_deployments": 3, "keep_deployments_for": "2d"})

        app = (await world.post(path, json={"keep_deployments": None})).json()
        assert (app["keep_deployments"], app["keep_deployments_seconds"]) == (None, 172_800)
        refused = await world.post(path, json={"keep_deployments": 0})
        assert refused.status_code == 400

    control(scenario)


def test_an_ended_run_that_still_asks_for_something_keeps_its_deployment(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        run_id = await world.start([1])
        await _deployed(world, b"two")
        await world.record(
            run_id,
            Event(EventType.RUN_STARTED, 1000, 0, b'["in"]', {"workflow": "fulfil"}),
            status=RunStatus.CONTINUED,
            effects=(b"start the next one",),
        )

        assert (await _delete(world, first, force=True))["runs"] == [run_id]

    control(scenario)


def test_a_round_that_breaks_is_told_and_followed_by_another(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        rounds: asyncio.Queue[None] = asyncio.Queue()

        async def broken() -> int:
            rounds.put_nowait(None)
            raise RuntimeError("a bug")

        world.removals.clean = broken  # type: ignore[method-assign] # a bug, not a failing store
        working = asyncio.ensure_future(world.janitor.run())
        for _ in range(2):
            async with asyncio.timeout(10.0):
                await rounds.get()
            world.janitor.wake()
        world.janitor.close()
        await working

        assert "deployments not tidied up" in caplog.messages

    control(scenario)
