"""Steering runs through the control API: each request becomes one message to the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.ids import continued_run_id, new_run_id
from fluvial_queue.contract import RunStatus, StartRun
from fluvial_queue.messages import Message, MessageKind
from tests.integration.control.world import World

Control = Callable[..., None]


async def _sent(world: World, run_id: str) -> Message:
    """Return the one message that was sent to a run since its start."""
    (message,) = [m for _, m in await world.messages(run_id) if m.kind is not MessageKind.START]
    return message


@pytest.mark.parametrize(
    ("how", "body", "meta"),
    [
        ("cancel", {"reason": "wrong order"}, {"reason": "wrong order"}),
        ("cancel", None, {}),
        ("terminate", {"reason": "wrong order"}, {"reason": "wrong order"}),
        ("pause", {"reason": "a look at it"}, {"reason": "a look at it"}),
        ("resume", {}, {}),
        ("wake", {}, {}),
        ("retry", None, {}),
        ("tag", {"tags": {"a": "b", "c": None}}, {"tags": {"a": "b", "c": None}}),
    ],
)
def test_a_request_becomes_a_message_that_says_who_asked(
    control: Control, how: str, body: Any, meta: dict[str, Any]
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        deployment = (await world.runs.get(run_id)).deployment
        response = await world.post(f"/v1/runs/{run_id}/{how}", json=body)

        assert response.status_code == 202
        assert response.json() == {"run_id": run_id, "deployment": deployment}
        message = await _sent(world, run_id)
        assert (message.kind, message.id) == (MessageKind(how), 0)
        assert message.meta == {**meta, "by": "test"}

    control(scenario)


def test_one_timer_is_woken_by_its_number(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        await world.post(f"/v1/runs/{run_id}/wake", json={"timer": 7})

        assert (await _sent(world, run_id)).id == 7

    control(scenario)


def test_a_request_reaches_the_run_that_goes_on_in_place_of_another(control: Control) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy()
        run_id = await world.start()
        await world.record(
            run_id,
            Event(EventType.RUN_STARTED, 1, 0, b"", {}),
            Event(EventType.RUN_CONTINUED, 2, 0, b"", {}),
            status=RunStatus.CONTINUED,
        )
        following = continued_run_id(run_id)
        await world.store.start(
            StartRun(
                run_id=following,
                app="shop",
                workflow="fulfil",
                deployment=deployed["deployment"]["deployment"],
                input=b"",
            )
        )
        response = await world.post(f"/v1/runs/{run_id}/pause")

        assert response.json()["run_id"] == following
        assert (await _sent(world, following)).kind is MessageKind.PAUSE

    control(scenario)


@pytest.mark.parametrize(
    ("how", "body", "detail"),
    [
        ("cancel", {"reason": "x" * 501}, "body.reason: has 501 characters"),
        ("wake", {"timer": 0}, "body.timer: is 0"),
        ("tag", {}, "the member 'tags' is missing"),
        ("tag", {"tags": {}}, "body.tags: has 0 members, expected 1 to 64 members"),
        ("tag", {"tags": {"a": 1}}, "body.tags.a: expected string, got integer"),
        ("tag", {"tags": {str(n): "x" for n in range(64)}}, "a run has at most 64 tags"),
        ("retry", {"now": True}, "unknown member 'now'"),
    ],
)
def test_a_wrong_request_is_refused(control: Control, how: str, body: Any, detail: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start({"tags": {"there": "already"}})
        response = await world.post(f"/v1/runs/{run_id}/{how}", json=body)

        assert response.status_code == 400, response.text
        assert detail in response.json()["detail"]
        assert [m.kind for _, m in await world.messages(run_id)] == [MessageKind.START]

    control(scenario)


def test_a_run_that_has_ended_is_deleted_at_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        live = await world.client.delete(f"/v1/runs/{run_id}")
        await world.finish(run_id)
        deleted = await world.client.delete(f"/v1/runs/{run_id}")
        again = await world.client.delete(f"/v1/runs/{run_id}")

        assert (live.status_code, live.json()["code"]) == (409, "run_open")
        assert "pending: only a run that has ended" in live.json()["detail"]
        assert (deleted.status_code, deleted.content) == (204, b"")
        assert (again.status_code, again.json()["code"]) == (404, "run_not_found")
        assert (await world.get("/v1/runs")).json()["runs"] == []

    control(scenario)


def test_a_run_whose_parent_does_not_know_yet_is_not_deleted(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        tell = Message(MessageKind.EFFECT, run_id, meta={"do": "tell", "run": new_run_id(4)})
        await world.record(
            run_id,
            Event(EventType.RUN_STARTED, 1, 0, b"", {}),
            Event(EventType.RUN_COMPLETED, 2, 0, b""),
            status=RunStatus.COMPLETED,
            effects=(tell.encode(),),
        )
        refused = await world.client.delete(f"/v1/runs/{run_id}")

        assert refused.status_code == 409
        assert "is not done yet: try again soon" in refused.json()["detail"]

    control(scenario)


def test_steering_an_ended_run_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        await world.finish(run_id)
        response = await world.post(f"/v1/runs/{run_id}/cancel")

        assert response.status_code == 409
        assert response.json()["code"] == "run_closed"

    control(scenario)


async def _paused(world: World) -> str:
    await world.deploy()
    run_id = await world.start()
    await world.record(
        run_id,
        Event(EventType.RUN_STARTED, 1, 0, b"", {}),
        Event(EventType.RUN_PAUSED, 2, meta={"reason": "diverged: - recorded"}),
        status=RunStatus.PAUSED,
    )
    return run_id


async def _resumed(world: World, run_id: str) -> dict[str, Any]:
    """Return what the one message asks for that resumes a run."""
    ((_, message),) = await world.messages(run_id)
    assert message.kind is MessageKind.RESUME
    return message.meta


def test_resume_lets_a_run_go_on_where_it_is(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _paused(world)
        response = await world.post(f"/v1/runs/{run_id}/resume")

        assert response.status_code == 202
        assert response.json()["deployment"] == (await world.runs.get(run_id)).deployment
        assert await _resumed(world, run_id) == {"by": "test"}

    control(scenario)


@pytest.mark.parametrize("named", ["latest", "id"])
def test_resume_moves_a_paused_run_to_another_deployment(
    control: Control, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        run_id = await _paused(world)
        fixed = (await world.deploy(b"fixed"))["deployment"]["deployment"]
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        wanted = {"deployment": fixed if named == "id" else "latest"}
        response = await world.post(f"/v1/runs/{run_id}/resume", json=wanted)

        assert response.json() == {"run_id": run_id, "deployment": fixed}
        assert await _resumed(world, run_id) == {"by": "test", "deployment": fixed}
        (audited,) = caplog.records
        assert audited.__dict__["about"]["to_deployment"] == fixed
        assert audited.__dict__["token_name"] == "test"

    control(scenario)


def test_only_a_paused_run_is_moved(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        running = await world.post(f"/v1/runs/{run_id}/resume", json={"deployment": "latest"})
        await world.finish(run_id)
        ended = await world.post(f"/v1/runs/{run_id}/resume", json={"deployment": "latest"})

        assert (running.status_code, running.json()["code"]) == (409, "run_not_paused")
        assert (ended.status_code, ended.json()["code"]) == (409, "run_closed")

    control(scenario)


def test_a_run_is_moved_only_to_where_its_app_has_its_workflow(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _paused(world)
        others = (await world.deploy(b"other", name="other"))["deployment"]["deployment"]
        world.builder.workflows = ("renamed",)
        without = (await world.deploy(b"without"))["deployment"]["deployment"]
        wanted = [others, "dpl_" + "0" * 24, without, "latest", "production"]
        refusals = [
            await world.post(f"/v1/runs/{run_id}/resume", json={"deployment": each})
            for each in wanted
        ]

        assert [refused.json()["code"] for refused in refusals] == [
            "deployment_not_found",
            "deployment_not_found",
            "workflow_not_found",
            "workflow_not_found",
            "invalid_request",
        ]
        assert await world.messages(run_id) == []

    control(scenario)
