"""Every operation checks its scope: the whole matrix of operations and scopes, generated."""

from __future__ import annotations

import re
from collections.abc import Callable

from fluvial.ids import new_run_id
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Operation
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
PUBLIC = {"/livez", "/readyz", "/metrics", "/openapi.json"}


def path_of(operation: Operation) -> str:
    """Return the operation's path with something in its place for each parameter."""
    known = {
        "app": "shop",
        "id": new_run_id(4),
        "workflow": "fulfil",
        "token": "t",
        "cron": "nightly",
        "alias": "staging",
        "host": "shop.example.com",
        "name": "tokens",
        "key": "k",
        "hook": "approval",
    }
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: known[match[1]], operation.path)


def test_every_operation_refuses_every_scope_that_it_does_not_name(control: Control) -> None:
    async def scenario(world: World) -> None:
        wrong: list[str] = []
        for scope in Scope:
            token = await world.tokens.create(scope.value, [scope])
            async with client_of(world, token) as client:
                for operation in world.operations:
                    response = await client.request(operation.method, path_of(operation))
                    may = not operation.scopes or scope in operation.scopes or scope is Scope.ADMIN
                    if (response.status_code == 403) is may or response.status_code == 401:
                        wrong.append(f"{scope} {operation.name}: {response.status_code}")

        assert wrong == []

    control(scenario)


def test_every_operation_but_the_public_ones_refuses_strangers(control: Control) -> None:
    async def scenario(world: World) -> None:
        public: set[str] = set()
        for authorization in ("", "Basic eDp5", "Bearer", "Bearer short", f"Bearer {'x' * 40}"):
            async with client_of(world, None) as client:
                for operation in world.operations:
                    response = await client.request(
                        operation.method,
                        path_of(operation),
                        headers={"authorization": authorization} if authorization else {},
                    )
                    if response.status_code != 401:
                        public.add(operation.path)
                    else:
                        assert response.headers["www-authenticate"].startswith("Bearer")
                        assert response.json()["code"] == "unauthenticated"

        assert public <= PUBLIC

    control(scenario)


def test_table_has_every_route_of_the_application(control: Control) -> None:
    async def scenario(world: World) -> None:
        routed = {getattr(route, "path", "") for route in world.app.routes}

        assert routed == {operation.path for operation in world.operations} | {"/openapi.json"}

    control(scenario)


def test_created_token_has_its_scopes_and_is_stored_hashed(control: Control) -> None:
    async def scenario(world: World) -> None:
        made = await world.post("/v1/tokens", json={"name": "ci", "scopes": ["deploy"]})
        token = made.json()["token"]
        async with client_of(world, token) as client:
            assert (await client.get("/v1/apps")).status_code == 200
            assert (await client.get("/v1/usage")).status_code == 403

        assert made.status_code == 201
        stored = await world.store.list_records("token")
        assert all(token not in repr(record) for record in stored)

    control(scenario)
