"""Variables and secrets through the control API: what is sealed, listed, refused and deployed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.manifest import DeploymentSpec
from fluvial.sealing import variable_binding
from fluvial.variables import MAX_ENVIRONMENT_BYTES
from fluvial_gateway.auth import Scope
from tests.integration.control.world import KEY_ID, World, client_of

Control = Callable[..., None]
ENVIRONMENT = "/v1/apps/shop/environment"
CANARY = "s3cret-canary-0451"


async def put(world: World, secret: bool = False, **variables: str) -> Any:
    response = await world.post(ENVIRONMENT, json={"variables": variables, "secret": secret})
    assert response.status_code == 200, response.text
    return response.json()


async def spec_of(world: World, deployment: str) -> DeploymentSpec:
    return (await world.catalogue.deployment(deployment)).spec


def opened(world: World, sealed: dict[str, bytes]) -> dict[str, str]:
    """What an instance would find in its environment."""
    keys = world.keyring.of("shop")
    return {
        name: keys.open(variable_binding("shop", name), value).decode()
        for name, value in sealed.items()
    }


async def production(world: World) -> DeploymentSpec:
    app = (await world.get("/v1/apps/shop")).json()
    return await spec_of(world, app["production"])


def test_what_was_set_is_listed_by_name_and_nowhere_in_clear(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(world: World) -> None:
        await world.deploy()
        await put(world, GREETING=CANARY)
        await put(world, secret=True, TOKEN=CANARY)
        shown = (await world.get(ENVIRONMENT)).json()
        deployed = await world.deploy()

        assert [(v["name"], v["secret"], v["set_by"]) for v in shown["variables"]] == [
            ("GREETING", False, "test"),
            ("TOKEN", True, "test"),
        ]
        assert shown["bytes"] == len("GREETINGTOKEN") + 2 * len(CANARY)
        assert deployed["deployment"]["environment"] == ["GREETING", "TOKEN"]
        texts = [str(shown), str(deployed), *(str(record.__dict__) for record in caplog.records)]
        for kind in ("environment", "deployment", "app", "setting"):
            texts += [repr(record) for record in await world.store.list_records(kind)]
        assert not any(CANARY in text for text in texts)

    control(scenario)


def test_a_deployment_keeps_the_environment_of_its_deploy(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, COLOUR="red")  # before the app was ever deployed
        first = await world.deploy()
        await put(world, COLOUR="blue", SIZE="5")
        before = opened(world, (await production(world)).sealed_environment)
        redeployed = (await world.post("/v1/apps/shop/redeploy")).json()
        after = await production(world)

        assert before == {"COLOUR": "red"}
        assert opened(world, after.sealed_environment) == {"COLOUR": "blue", "SIZE": "5"}
        assert redeployed["deployment"]["deployment"] == after.deployment
        assert after.bundle == first["deployment"]["bundle"]
        await world.post("/v1/apps/shop/rollback")
        assert opened(world, (await production(world)).sealed_environment) == before

    control(scenario)


def test_a_deploy_of_the_same_bundle_is_none_only_with_the_same_environment(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        await put(world, COLOUR="red")
        first = await world.deploy(b"same")
        assert not (await world.deploy(b"same"))["created"]
        assert not (await world.post("/v1/apps/shop/redeploy")).json()["created"]
        await put(world, COLOUR="red")
        second = await world.deploy(b"same")
        removed = await world.client.delete(f"{ENVIRONMENT}/COLOUR")
        third = await world.deploy(b"same")

        assert second["created"]
        assert removed.json()["variables"] == []
        assert third["deployment"]["environment"] == []
        assert len({d["deployment"]["deployment"] for d in (first, second, third)}) == 3

    control(scenario)


def test_the_list_says_what_production_does_not_have_yet(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, COLOUR="red", SIZE="5")
        await world.deploy()
        changed = await put(world, COLOUR="blue")

        assert [(v["name"], v["in_production"]) for v in changed["variables"]] == [
            ("COLOUR", False),
            ("SIZE", True),
        ]

    control(scenario)


def test_redeploy_without_promote_leaves_the_alias(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = (await world.deploy())["deployment"]["deployment"]
        await put(world, COLOUR="blue")
        made = (await world.post("/v1/apps/shop/redeploy", json={"promote": False})).json()

        assert made["created"]
        assert made["url"] == made["deployment"]["url"]
        assert (await production(world)).deployment == first

    control(scenario)


def test_redeploy_needs_something_in_production(control: Control) -> None:
    async def scenario(world: World) -> None:
        unknown = await world.post("/v1/apps/shop/redeploy")
        await world.deploy(promote="false")
        idle = await world.post("/v1/apps/shop/redeploy")

        assert (unknown.status_code, unknown.json()["code"]) == (404, "app_not_found")
        assert (idle.status_code, idle.json()["code"]) == (409, "nothing_deployed")

    control(scenario)


def test_the_build_is_told_names_and_the_manifests_variables_are_plain(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, COLOUR="red")
        world.builder.environment = {"COLOUR": "green", "LANGUAGE": "en"}
        await world.deploy(name="shop")
        spec = await production(world)

        assert world.builder.variables == ("COLOUR",)
        assert spec.environment == {"COLOUR": "green", "LANGUAGE": "en"}
        assert opened(world, spec.sealed_environment) == {"COLOUR": "red"}

    control(scenario)


def test_a_secret_does_not_become_a_variable_by_mistake(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, secret=True, TOKEN=CANARY)
        refused = await world.post(
            ENVIRONMENT, json={"variables": {"TOKEN": "plain", "COLOUR": "red"}}
        )
        listed = (await world.get(ENVIRONMENT)).json()["variables"]

        assert (refused.status_code, refused.json()["code"]) == (409, "variable_is_secret")
        assert [(v["name"], v["secret"]) for v in listed] == [("TOKEN", True)]
        await world.client.delete(f"{ENVIRONMENT}/TOKEN")
        await put(world, TOKEN="plain")

    control(scenario)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"FLUVIAL_APP": CANARY}, "reserved"),
        ({"NOT-A-NAME": CANARY}, "NOT-A-NAME"),
        ({"TOKEN": [CANARY]}, "expected string, got array"),
        ({"TOKEN": f"{CANARY}\0"}, "NUL"),
        ({"TOKEN": CANARY + "x" * MAX_ENVIRONMENT_BYTES}, "bytes"),
        ({}, "members"),
    ],
    ids=["reserved", "name", "type", "nul", "size", "none"],
)
def test_what_cannot_be_set_is_refused_without_its_value(
    control: Control, variables: dict[str, Any], reason: str
) -> None:
    async def scenario(world: World) -> None:
        refused = await world.post(ENVIRONMENT, json={"variables": variables, "secret": True})

        assert refused.status_code == 400
        assert reason in refused.json()["detail"]
        assert CANARY not in refused.text
        assert await world.store.list_records("environment") == []

    control(scenario)


def test_the_manifests_and_the_apps_own_are_bounded_together(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, LARGE="x" * (MAX_ENVIRONMENT_BYTES // 2))
        world.builder.environment = {"OTHER": "x" * (MAX_ENVIRONMENT_BYTES // 2)}
        refused = await world.deploy()

        assert refused["problem"]["code"] == "invalid_request"
        assert (await world.get("/v1/deployments")).json()["deployments"] == []

    control(scenario)


def test_nothing_is_set_while_the_keys_are_frozen(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.post("/v1/apps/shop/keys/freeze")
        refused = await world.post(ENVIRONMENT, json={"variables": {"A": "b"}})

        assert (refused.status_code, refused.json()["code"]) == (409, "keys_frozen")

    control(scenario)


def test_what_is_set_after_a_rotation_is_sealed_to_the_new_key(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await put(world, OLD="1")
        rotated = (await world.post("/v1/apps/shop/keys/rotate")).json()["current"]
        await put(world, NEW="2")
        await world.post("/v1/apps/shop/redeploy")
        sealed = (await production(world)).sealed_environment

        assert sealed["NEW"][2 : 2 + len(rotated)] == rotated.encode()
        assert opened(world, sealed) == {"NEW": "2", "OLD": "1"}

    control(scenario)


def test_a_key_that_the_environment_needs_is_destroyed_by_force_only(control: Control) -> None:
    async def scenario(world: World) -> None:
        await put(world, secret=True, TOKEN=CANARY)
        await world.deploy()
        await world.post("/v1/apps/shop/keys/rotate")
        await put(world, secret=True, TOKEN=CANARY)  # of now, but production has the old one
        key = f"/v1/apps/shop/keys/{KEY_ID}/destroy"
        refused = await world.post(key)
        planned = (await world.post(key, json={"dry_run": True})).json()
        await world.post("/v1/apps/shop/redeploy")
        old = (await world.get("/v1/apps/shop")).json()["previous"]
        await world.post("/v1/apps/shop/aliases/old", json={"deployment": old})
        aliased = await world.post(key)
        await world.client.delete("/v1/apps/shop/aliases/old")
        done = await world.post(key)

        assert aliased.json()["variables"] == ["TOKEN"]
        assert (refused.status_code, refused.json()["code"]) == (409, "key_in_use")
        assert refused.json()["variables"] == planned["variables"] == ["TOKEN"]
        assert (done.status_code, done.json()["variables"]) == (200, [])

    control(scenario)


def test_an_unknown_app_and_an_unknown_variable_are_not_found(control: Control) -> None:
    async def scenario(world: World) -> None:
        app = await world.get(ENVIRONMENT)
        variable = await world.client.delete(f"{ENVIRONMENT}/TOKEN")

        assert (app.status_code, app.json()["code"]) == (404, "app_not_found")
        assert (variable.status_code, variable.json()["code"]) == (404, "variable_not_found")

    control(scenario)


def test_a_change_whose_answer_was_lost_happens_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        world.store.lost_answers = 1
        await put(world, COLOUR="red")
        world.store.lost_answers = 1
        removed = await world.client.delete(f"{ENVIRONMENT}/COLOUR")

        assert removed.status_code == 200
        [record] = await world.store.list_records("environment")
        assert record.version == 2

    control(scenario)


def test_a_token_for_environments_alone_cannot_deploy(control: Control) -> None:
    async def scenario(world: World) -> None:
        token = await world.tokens.create("ci", [Scope.ENVIRONMENT])
        async with client_of(world, token) as client:
            body = {"variables": {"A": "b"}}
            assert (await client.post(ENVIRONMENT, json=body)).status_code == 200
            assert (await client.post("/v1/apps/shop/redeploy")).status_code == 403

    control(scenario)


def test_the_audit_log_names_variables_and_never_values(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fluvial_gateway.audit")

    async def scenario(world: World) -> None:
        await put(world, secret=True, TOKEN=CANARY)
        await world.client.delete(f"{ENVIRONMENT}/TOKEN")

        lines = [r.__dict__ for r in caplog.records if r.name == "fluvial_gateway.audit"]
        assert [(line["operation"], line["about"]) for line in lines] == [
            ("setEnvironment", {"app": "shop", "names": ["TOKEN"], "secret": True}),
            ("removeVariable", {"app": "shop", "name": "TOKEN"}),
        ]

    control(scenario)
