"""Why a run waits, over the control API: who sees what, and the form for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fluvial.events import Event, EventType
from fluvial.ids import new_run_id
from fluvial_gateway.auth import Scope
from fluvial_queue.contract import RunStatus
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
TOKEN = "hook_00000000000000000000000000_aaaaaaaaaaaaaaaaaaaaaaaa"


def _opened(number: int, token: str) -> Event:
    return Event(EventType.HOOK_OPENED, 1000 + number, number, b"", {"token": token})


async def _with_hooks(world: World, *tokens: str) -> str:
    await world.deploy()
    run_id = await world.start()
    await world.record(
        run_id,
        Event(EventType.RUN_STARTED, 1000, 0, b'["in"]', {}),
        *(_opened(number, token) for number, token in enumerate(tokens, 1)),
        status=RunStatus.RUNNING,
        hooks=tokens,
        turn=b"\0\0\0\1" + b"turn_id8",
    )
    return run_id


async def _waiting(world: World, run_id: str, **query: str) -> dict[str, Any]:
    response = await world.get(f"/v1/runs/{run_id}/waiting", params=query)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_what_a_run_waits_for_is_told_in_parts(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _with_hooks(world, "approve:x")
        found = await _waiting(world, run_id)

        assert found["sentence"].startswith("It waits for a payload for its hook approve:x, open ")
        assert (found["run_id"], found["status"], found["count"]) == (run_id, "running", 1)
        assert (found["chain"], found["leaf"], found["owner"]) == ([], None, None)
        assert found["waits_for"] == [
            {
                "kind": "hook",
                "operation": 1,
                "since": "1970-01-01T00:00:01.001Z",
                "until": None,
                "name": None,
                "attempt": None,
                "state": None,
                "instance": None,
                "problem": None,
                "code": None,
                "by": None,
                "webhook": False,
                "token": "approve:x",
                "run_id": None,
                "commands": ["fluvial hooks resume approve:x JSON --app shop"],
            }
        ]

    control(scenario)


def test_a_secret_token_is_shown_to_those_who_may_read_data_and_ask_for_it(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        run_id = await _with_hooks(world, TOKEN)
        unasked = await _waiting(world, run_id)
        asked = await _waiting(world, run_id, data="true")
        reader = await world.tokens.create("reader", [Scope.RUNS_READ])
        async with client_of(world, reader) as client:
            refused = await client.get(f"/v1/runs/{run_id}/waiting", params={"data": "true"})
            allowed = await client.get(f"/v1/runs/{run_id}/waiting")

        assert TOKEN not in str(unasked)
        assert unasked["waits_for"][0]["commands"] == [f"fluvial runs why {run_id} --data"]
        assert asked["waits_for"][0]["token"] == TOKEN
        assert TOKEN in asked["sentence"]
        assert (refused.status_code, allowed.status_code) == (403, 200)
        assert TOKEN not in allowed.text

    control(scenario)


def test_a_chain_of_children_is_told_in_parts(control: Control) -> None:
    async def scenario(world: World) -> None:
        child = await _with_hooks(world, "approve:x")
        parent = await world.start()
        meta = {"run": child, "workflow": "fulfil", "policy": "cancel"}
        await world.record(
            parent,
            Event(EventType.RUN_STARTED, 1000, 0, b"[]", {}),
            Event(EventType.CHILD_SCHEDULED, 1001, 1, b"", meta),
            status=RunStatus.RUNNING,
            turn=b"\0\0\0\1" + b"turn_id8",
        )
        found = await _waiting(world, parent)

        assert found["chain"] == [{"run_id": child, "workflow": "fulfil", "status": "running"}]
        assert (found["waits_for"][0]["kind"], found["waits_for"][0]["run_id"]) == ("child", child)
        assert (found["leaf"]["kind"], found["leaf"]["token"]) == ("hook", "approve:x")

    control(scenario)


def test_of_many_things_a_hundred_are_shown_and_all_counted(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _with_hooks(world, *(f"many:{number}" for number in range(150)))
        found = await _waiting(world, run_id)

        assert (len(found["waits_for"]), found["count"]) == (100, 150)
        assert "; 149 other things are open too: " in found["sentence"]

    control(scenario)


def test_an_unknown_run_is_not_found(control: Control) -> None:
    async def scenario(world: World) -> None:
        response = await world.get(f"/v1/runs/{new_run_id(4)}/waiting")

        assert (response.status_code, response.json()["code"]) == (404, "run_not_found")

    control(scenario)
