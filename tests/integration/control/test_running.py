"""Starting and listing runs, and resuming hooks, through the control API."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.ids import keyed_run_id, new_run_id
from fluvial_gateway.auth import Scope
from fluvial_queue.contract import RunStatus, StartRun
from fluvial_queue.messages import MessageKind
from tests.integration.control.world import World, client_of

Control = Callable[..., None]


@pytest.mark.parametrize(
    ("body", "plaintext"),
    [
        ([1, "zwei"], b'j[1,"zwei"]'),
        ({"args": [1]}, b"j[1]"),
        ({"kwargs": {"a": 1}}, b'j{"args":[],"kwargs":{"a":1}}'),
        ({}, b"j[]"),
    ],
)
def test_start_seals_the_input_for_the_app(control: Control, body: Any, plaintext: bytes) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()
        run_id = await world.start(body)

        run = await world.runs.get(run_id)
        assert run.deployment == deployed["deployment"]["deployment"]
        assert plaintext not in run.input
        assert world.opened(run_id, "input", run.input) == plaintext

    control(scenario)


def test_same_key_names_the_same_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        path = "/v1/apps/shop/workflows/fulfil/runs"
        first = await world.post(path, json=[1], headers={"idempotency-key": "order-1"})
        again = await world.post(path, json={"args": [1], "key": "order-1"})

        assert first.json()["outcome"] == "accepted"
        assert again.json()["outcome"] == "duplicate"
        assert first.json()["run_id"] == keyed_run_id("shop", "fulfil", "order-1", 4)

    control(scenario)


def test_same_key_with_another_input_is_a_conflict(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start([1], **{"idempotency-key": "k"})
        response = await world.post(
            "/v1/apps/shop/workflows/fulfil/runs", json=[2], headers={"idempotency-key": "k"}
        )

        assert response.status_code == 409
        assert response.json()["code"] == "start_conflict"

    control(scenario)


def test_start_whose_answer_was_lost_is_accepted_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        world.store.lost_answers = 1
        response = await world.post("/v1/apps/shop/workflows/fulfil/runs", json=[])

        assert response.json()["outcome"] == "accepted"
        assert len((await world.get("/v1/runs")).json()["runs"]) == 1

    control(scenario)


def test_unknown_workflow_lists_the_known_ones(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        response = await world.post("/v1/apps/shop/workflows/fulfill/runs", json=[])

        assert response.status_code == 404
        assert response.json()["code"] == "workflow_not_found"
        assert response.json()["workflows"] == ["fulfil"]

    control(scenario)


def test_run_stays_on_its_deployment_after_a_promote(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = (await world.deploy(b"one"))["deployment"]["deployment"]
        run_id = await world.start()
        await world.deploy(b"two")

        assert (await world.get(f"/v1/runs/{run_id}")).json()["deployment"] == first

    control(scenario)


def test_runs_are_listed_page_by_page(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        started = {await world.start([number]) for number in range(5)}

        seen: list[str] = []
        cursor: str | None = None
        while True:
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await world.get("/v1/runs", params=query)).json()
            seen += [run["run_id"] for run in page["runs"]]
            cursor = page["cursor"]
            if cursor is None:
                break
        assert len(seen) == 5
        assert set(seen) == started

    control(scenario)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"app": "shop"}, 2),
        ({"app": "other"}, 0),
        ({"workflow": "fulfil"}, 2),
        ({"status": "completed"}, 1),
        ({"status": "completed,pending"}, 2),
        ({"since": "2000-01-01T00:00:00Z"}, 2),
        ({"since": "2999-01-01T00:00:00Z"}, 0),
        ({"since": "1h"}, 2),
        ({"until": "1h"}, 0),
        ({"until": "2999-01-01T00:00:00Z"}, 2),
        ({"tag": "colour=red"}, 2),
        ({"tag": ["colour=red", "size=s=m"]}, 1),
        ({"tag": ["colour=red", "size=l"]}, 0),
        ({"tag": "empty="}, 1),
    ],
)
def test_runs_are_filtered(control: Control, query: dict[str, Any], count: int) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start({"tags": {"colour": "red"}})
        tags = {"colour": "red", "size": "s=m", "empty": ""}
        await world.finish(await world.start({"tags": tags}))

        assert len((await world.get("/v1/runs", params=query)).json()["runs"]) == count

    control(scenario)


def test_runs_of_a_family_are_found(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()
        root, other = await world.start(), await world.start()
        child = new_run_id(4)
        await world.store.start(
            StartRun(
                run_id=child,
                app="shop",
                workflow="fulfil",
                deployment=deployed["deployment"]["deployment"],
                input=b"",
                meta={"parent": root, "root": root},
            )
        )

        async def found(**query: str) -> set[str]:
            page = (await world.get("/v1/runs", params=query)).json()
            return {run["run_id"] for run in page["runs"]}

        assert await found(parent=root) == {child}
        assert await found(root=root) == {root, child}
        assert await found(parent=other) == set()

    control(scenario)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"status": "waiting"}, "query parameter status: 'waiting' is not a valid RunStatus"),
        ({"since": "yesterday"}, "query parameter since: 'yesterday' is no time such as"),
        ({"until": "2026-01-31T12:00:00"}, "query parameter until: '2026-01-31T12:00:00' has no"),
        ({"tag": "colour"}, "query parameter tag: 'colour' is not `name=value`"),
        ({"tag": "=red"}, "query parameter tag: '=red' is not `name=value`"),
        ({"tag": [f"{number}=x" for number in range(65)]}, "has 65 items, expected 0 to 64 items"),
        ({"colour": "red"}, "unknown query parameter 'colour'"),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(
    control: Control, query: dict[str, Any], detail: str
) -> None:
    async def scenario(world: World) -> None:
        response = await world.get("/v1/runs", params=query)

        assert response.status_code == 400
        assert detail in response.json()["detail"]

    control(scenario)


async def _open_hook(world: World, token: str) -> str:
    await world.deploy()
    run_id = await world.start()
    await world.store.claim_token("shop", token, run_id)
    started = Event(EventType.RUN_STARTED, 1, 0, b"", {})
    await world.record(run_id, started, status=RunStatus.RUNNING, hooks=(token,))
    return run_id


def test_resume_delivers_the_payload_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _open_hook(world, "order:7/a")
        for outcome in ("accepted", "duplicate"):
            response = await world.post(
                "/v1/hooks/shop/order:7/a",
                json={"approved": True},
                headers={"x-fluvial-resume-id": "one"},
            )
            assert response.status_code == 202
            assert response.json() == {"run_id": run_id, "outcome": outcome}

        ((_, message),) = await world.messages(run_id)
        assert message.kind is MessageKind.HOOK
        assert message.meta == {"token": "order:7/a", "resume": "one"}
        opened = world.opened(run_id, "hook", message.payload, "order:7/a")
        assert (opened[:1], json.loads(opened[1:])) == (b"j", {"approved": True})

    control(scenario)


def test_generated_token_names_its_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        token = f"hook_{run_id.removeprefix('run_')}_{'a' * 24}"
        await world.record(run_id, status=RunStatus.RUNNING, hooks=(token,))

        assert (await world.post(f"/v1/hooks/shop/{token}", json=1)).json()["run_id"] == run_id

    control(scenario)


@pytest.mark.parametrize("token", ["never-opened", f"hook_0006h1kv6z0wt3bdqwdsmjzd44_{'a' * 24}"])
def test_hook_that_is_not_open_is_told_to_come_again(control: Control, token: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        response = await world.post(f"/v1/hooks/shop/{token}", json=1)

        assert response.status_code == 404
        assert response.json()["code"] == "hook_not_found"
        assert int(response.headers["retry-after"]) > 0

    control(scenario)


def test_hook_of_another_app_does_not_exist(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _open_hook(world, "mine")
        await world.deploy(b"other", name="other")
        token = f"hook_{run_id.removeprefix('run_')}_{'a' * 24}"

        for name in ("mine", token):
            assert (await world.post(f"/v1/hooks/other/{name}", json=1)).status_code == 404

    control(scenario)


def test_resume_of_an_ended_run_is_closed(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _open_hook(world, "t")
        await world.record(
            run_id, Event(EventType.RUN_COMPLETED, 2, 0, b"1"), status=RunStatus.COMPLETED
        )
        response = await world.post("/v1/hooks/shop/t", json=1)

        assert (response.status_code, response.json()["code"]) == (409, "run_closed")

    control(scenario)


def test_tokens_do_not_reach_further_than_their_scopes(control: Control) -> None:
    async def scenario(world: World) -> None:
        token = await world.tokens.create("reader", [Scope.RUNS_READ])
        await world.deploy()
        async with client_of(world, token) as reader:
            response = await reader.post("/v1/apps/shop/workflows/fulfil/runs", json=[])

        assert response.status_code == 403
        assert "runs:write" in response.json()["detail"]
        assert (await world.get("/v1/runs")).json()["runs"] == []

    control(scenario)
