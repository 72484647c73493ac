"""Keys through the control API: what is shown, changed and refused, and what the gateway seals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.hook_tokens import SECRET_BYTES, secret_token
from fluvial.invocations import Answer, Unreadable
from fluvial.sealing import read_head
from fluvial_gateway.auth import Scope
from fluvial_gateway.invocations import Answered
from fluvial_gateway.invoker_client import RefusedError
from fluvial_queue.contract import RunStatus, StoreUnavailableError
from fluvial_queue.messages import MessageKind
from tests.integration.control.world import KEY_ID, World, client_of

Control = Callable[..., None]
KEYS = "/v1/apps/shop/keys"


async def rotate(world: World) -> str:
    """Rotate the app's keys; return the new key's id."""
    response = await world.post(f"{KEYS}/rotate")
    assert response.status_code == 200, response.text
    return str(response.json()["current"])


async def destroy(world: World, key_id: str, **body: bool) -> Any:
    return await world.post(f"{KEYS}/{key_id}/destroy", json=body)


async def begun(world: World, run_id: str, status: RunStatus = RunStatus.RUNNING) -> str:
    """Let a run begin, as its owner would."""
    sealed = (await world.runs.get(run_id)).input
    await world.record(run_id, Event(EventType.RUN_STARTED, 1, 0, sealed, {}), status=status)
    return run_id


async def finished(world: World, run_id: str) -> str:
    sealed = (await world.runs.get(run_id)).input
    await world.record(
        run_id,
        Event(EventType.RUN_STARTED, 1, 0, sealed, {}),
        Event(EventType.RUN_COMPLETED, 2, 0, b'"done"'),
        status=RunStatus.COMPLETED,
    )
    return run_id


async def paused(world: World, run_id: str, reason: str) -> str:
    await begun(world, run_id)
    pause = Event(EventType.RUN_PAUSED, 2, 0, b"", {"reason": reason})
    later = Event(EventType.TIMER_FIRED, 3, 1)
    await world.record(run_id, pause, later, status=RunStatus.PAUSED, reason=reason)
    return run_id


async def asked(world: World, run_id: str) -> list[tuple[MessageKind, dict[str, Any]]]:
    return [(message.kind, message.meta) for _, message in await world.messages(run_id)]


def test_keys_are_listed_without_anything_secret(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        new = await rotate(world)
        keyring = (await world.get(KEYS)).json()

        assert (keyring["app"], keyring["current"], keyring["frozen_at"]) == ("shop", new, None)
        assert [(key["key"], key["state"]) for key in keyring["keys"]] == [
            (KEY_ID, "decrypt_only"),
            (new, "current"),
        ]
        assert keyring["keys"][0] == {
            "key": KEY_ID,
            "state": "decrypt_only",
            "created_at": "2020-09-13T12:26:40.000Z",
            "destroyed_at": None,
            "is_wrapped": False,
        }

    control(scenario)


def test_from_a_rotation_on_others_seal_to_the_new_key_and_the_old_still_opens(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        before = await world.start(["before"])
        new = await rotate(world)
        after = await world.start(["after"])
        sealed = {run: (await world.runs.get(run)).input for run in (before, after)}

        assert [read_head(sealed[run])[1] for run in (before, after)] == [KEY_ID, new]
        assert world.opened(before, "input", sealed[before]) == b'j["before"]'
        assert world.opened(after, "input", sealed[after]) == b'j["after"]'

    control(scenario)


def test_a_rotation_that_the_record_did_not_learn_of_is_made_good_by_a_look(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.keyring.keyring("shop", "rotate", "00000001")
        assert (await world.catalogue.app("shop")).key_id == KEY_ID
        await world.get(KEYS)

        assert (await world.catalogue.app("shop")).key_id == "00000001"

    control(scenario)


def test_a_rotation_is_named_by_the_gateway_so_that_a_repetition_is_known(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        new = await rotate(world)

        assert world.keyring.operations[-1] == ("shop", "rotate", new)
        assert len(new) == 8

    control(scenario)


def test_an_unknown_app_has_no_keys_and_gets_none(control: Control) -> None:
    async def scenario(world: World) -> None:
        for method, path in (("GET", KEYS), ("POST", f"{KEYS}/rotate"), ("POST", f"{KEYS}/thaw")):
            response = await world.client.request(method, path)
            assert (response.status_code, response.json()["code"]) == (404, "app_not_found")
        assert world.keyring.operations == []

    control(scenario)


def test_the_current_key_and_an_unknown_one_are_not_destroyed(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        current = await destroy(world, KEY_ID, force=True)
        unknown = await destroy(world, "nowhere", force=True)

        assert (current.status_code, current.json()["code"]) == (409, "key_is_current")
        assert "rotate first" in current.json()["detail"]
        assert (unknown.status_code, unknown.json()["code"]) == (404, "key_not_found")
        assert KEY_ID in unknown.json()["detail"]
        assert not any(operation == "destroy" for _, operation, _ in world.keyring.operations)

    control(scenario)


def test_a_key_that_live_runs_need_is_destroyed_by_force_alone(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        pending = await world.start()
        running = await begun(world, await world.start())
        over = await finished(world, await world.start())
        await rotate(world)
        newer = await begun(world, await world.start())
        refused = await destroy(world, KEY_ID)
        planned = (await destroy(world, KEY_ID, dry_run=True)).json()

        assert (refused.status_code, refused.json()["code"]) == (409, "key_in_use")
        assert set(refused.json()["live_runs"]) == {pending, running}
        assert {run["run_id"]: run["is_certain"] for run in planned["live_runs"]} == {
            pending: True,
            running: True,
        }
        assert (planned["finished_run_count"], planned["is_complete"]) == (1, True)
        assert not planned["is_destroyed"]
        assert not any(operation == "destroy" for _, operation, _ in world.keyring.operations)

        done = (await destroy(world, KEY_ID, force=True)).json()
        assert done["is_destroyed"]
        assert done["terminated_runs"] == 2
        assert done["keyring"]["keys"][0]["state"] == "destroyed"
        assert (MessageKind.TERMINATE, {"reason": "key_destroyed"}) in await asked(world, running)
        assert await asked(world, newer) == []
        assert await asked(world, over) == []

    control(scenario)


def test_a_key_that_nobody_needs_is_destroyed(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await finished(world, await world.start())
        await rotate(world)
        await begun(world, await world.start())
        world.keyring.ended = 3
        done = await destroy(world, KEY_ID)

        assert done.status_code == 200
        assert done.json()["is_destroyed"]
        assert done.json()["keyring"]["ended_instances"] == 3
        assert done.json()["keyring"]["keys"][0]["destroyed_at"] == "2023-11-14T22:13:20.000Z"

    control(scenario)


def test_a_run_that_was_live_while_the_key_sealed_may_need_it_and_is_spared(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        older = await begun(world, await world.start())  # under the first key
        second = await rotate(world)
        await rotate(world)
        refused = await destroy(world, second)
        done = (await destroy(world, second, force=True)).json()

        assert refused.json()["live_runs"] == [older]
        assert done["live_runs"] == [{"run_id": older, "is_certain": False}]
        assert done["terminated_runs"] == 0
        assert await asked(world, older) == []

    control(scenario)


def test_a_fork_needs_the_key_that_its_random_numbers_are_made_of(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await rotate(world)
        fork = await world.start()
        sealed = (await world.runs.get(fork)).input
        seed = {"seed": {"run": "run_of_its_origin", "key": KEY_ID}}
        begin = Event(EventType.RUN_STARTED, 1, 0, sealed, seed)
        await world.record(fork, begin, status=RunStatus.RUNNING)
        planned = (await destroy(world, KEY_ID, dry_run=True)).json()

        assert planned["live_runs"] == [{"run_id": fork, "is_certain": True}]

    control(scenario)


def test_a_store_that_is_away_keeps_a_key_from_being_destroyed(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await rotate(world)
        world.store.failure = StoreUnavailableError("away")
        response = await destroy(world, KEY_ID)

        assert response.status_code == 503
        assert not any(operation == "destroy" for _, operation, _ in world.keyring.operations)

    control(scenario)


def test_while_keys_are_frozen_what_would_seal_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await begun(world, await world.start())
        token = secret_token(run_id, bytes(SECRET_BYTES))
        await world.record(run_id, status=RunStatus.RUNNING, hooks=(token,))
        frozen = (await world.post(f"{KEYS}/freeze")).json()
        refusals = [
            await world.post("/v1/apps/shop/workflows/fulfil/runs", json=[]),
            await world.post(f"/v1/hooks/shop/{token}", json={"yes": True}),
            await world.post(f"/v1/runs/{run_id}/resume"),
        ]
        allowed = [
            await world.get(f"/v1/runs/{run_id}", params={"data": "true"}),
            await world.get(f"/v1/runs/{run_id}/events", params={"data": "true"}),
            await world.post(f"/v1/runs/{run_id}/cancel"),
            await world.post(f"/v1/runs/{run_id}/terminate"),
            await world.post(f"{KEYS}/rotate"),
        ]

        assert frozen["frozen_at"] == "2023-11-14T22:13:20.000Z"
        for response in refusals:
            assert (response.status_code, response.json()["code"]) == (409, "keys_frozen")
            assert "fluvial keys thaw shop" in response.json()["detail"]
        assert [response.status_code for response in allowed] == [200, 200, 202, 202, 200]

        await world.post(f"{KEYS}/thaw")
        assert (await world.post("/v1/apps/shop/workflows/fulfil/runs", json=[])).status_code == 202

    control(scenario)


def test_a_thaw_lets_those_runs_go_on_that_the_freeze_had_paused(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        by_freeze = await paused(world, await world.start(), "keys_frozen: the keys of app shop …")
        by_fault = await paused(world, await world.start(), "diverged: recorded STEP_SCHEDULED")
        await world.post(f"{KEYS}/freeze")
        thawed = (await world.post(f"{KEYS}/thaw")).json()

        assert thawed["resumed_runs"] == 1
        assert thawed["keyring"]["frozen_at"] is None
        assert [kind for kind, _ in await asked(world, by_freeze)] == [MessageKind.RESUME]
        assert await asked(world, by_fault) == []

    control(scenario)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("kms_failed", 502),
        ("kms_not_configured", 409),
        ("keyring_unusable", 503),
        ("something_new", 503),
    ],
)
def test_a_refusal_of_the_invoker_is_told(control: Control, code: str, status: int) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        world.keyring.refusal = RefusedError(code, "it says why")
        response = await world.post(f"{KEYS}/rotate")

        assert response.status_code == status
        assert response.json()["detail"] == "it says why"

    control(scenario)


def test_the_scope_keys_allows_everything_but_to_destroy(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        token = await world.tokens.create("rotation", [Scope.KEYS])
        async with client_of(world, token) as client:
            allowed = [await client.get(KEYS)]
            allowed += [await client.post(f"{KEYS}/{how}") for how in ("rotate", "freeze", "thaw")]
            refused = await client.post(f"{KEYS}/{KEY_ID}/destroy", json={"dry_run": True})

        assert {response.status_code for response in allowed} == {200}
        assert refused.status_code == 403

    control(scenario)


def test_each_change_is_audited(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        new = await rotate(world)
        await world.get(KEYS)
        await destroy(world, KEY_ID, dry_run=True)
        await destroy(world, KEY_ID)
        for how in ("freeze", "thaw"):
            await world.post(f"{KEYS}/{how}")
        audited = [r.__dict__ for r in caplog.records if r.name == "fluvial_gateway.audit"]

        assert [(line["operation"], line["about"].get("key")) for line in audited] == [
            ("rotateKeys", new),
            ("destroyKey", KEY_ID),
            ("destroyKey", KEY_ID),
            ("freezeKeys", None),
            ("thawKeys", None),
        ]
        assert [line["about"]["is_done"] for line in audited[1:3]] == [False, True]
        assert all(line["about"]["app"] == "shop" for line in audited)

    control(scenario)


def test_what_cannot_be_opened_is_said_in_place_of_the_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await finished(world, await world.start())
        gone = Unreadable("key_destroyed", "the key 'k1' of app shop was destroyed at …")
        told = {"code": gone.code, "message": gone.message}
        world.invocations.outcome = Answered("ins_1", Answer(outcome="ok"), 1, [gone])
        shown = (await world.get(f"/v1/runs/{run_id}", params={"data": "true"})).json()
        result = (await world.get(f"/v1/runs/{run_id}/result")).json()
        world.invocations.outcome = Answered("ins_1", Answer(outcome="ok"), 1, [gone, '"x"'])
        events = (await world.get(f"/v1/runs/{run_id}/events", params={"data": "true"})).json()

        assert shown["unreadable"] == {"input": told, "result": told}
        assert "input" not in shown
        assert "result" not in shown
        unreadable = {"result": told}
        assert result == {"run_id": run_id, "status": "completed", "unreadable": unreadable}
        first, last = events["events"]
        assert first["unreadable"] == told
        assert "data" not in first
        assert last["data"] == "x"

    control(scenario)
