"""Aliases through the control API: set, listed, removed, routed, and remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fluvial_gateway.aliases import MAX_ALIASES
from fluvial_queue.alias_records import MAX_MOVES
from tests.integration.control.world import World

Control = Callable[..., None]


async def _deployed(world: World, archive: bytes, **query: Any) -> str:
    return str((await world.deploy(archive, **query))["deployment"]["deployment"])


async def _moves(world: World, **query: Any) -> list[dict[str, Any]]:
    found = (await world.get("/v1/apps/shop/history", params=query)).json()["moves"]
    return [
        {name: move[name] for name in ("alias", "from", "to", "by", "reason")} for move in found
    ]


def test_an_alias_has_a_host_of_its_own_that_follows_it(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        second = await _deployed(world, b"two")

        for target in (first, second):
            answer = await world.post("/v1/apps/shop/aliases/staging", json={"deployment": target})
            assert answer.json() == {
                "app": "shop",
                "alias": "staging",
                "deployment": target,
                "url": "http://staging--shop.localhost:8080",
            }
            destination = world.hosts.find(b"staging--shop.localhost")
            assert destination is not None
            assert (destination.app, destination.deployment) == ("shop", target)
        assert (await world.client.delete("/v1/apps/shop/aliases/staging")).status_code == 204
        assert world.hosts.find(b"staging--shop.localhost") is None
        assert (await world.get(f"/v1/deployments/{first}")).status_code == 200

    control(scenario)


def test_aliases_are_listed_with_production_first(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        second = await _deployed(world, b"two")
        await world.post("/v1/apps/shop/aliases/a", json={"deployment": first})

        listed = (await world.get("/v1/apps/shop/aliases")).json()["aliases"]
        assert [(a["alias"], a["deployment"]) for a in listed] == [
            ("production", second),
            ("a", first),
        ]
        assert (await world.get("/v1/apps/shop")).json()["aliases"] == {"a": first}
        deployments = (await world.get("/v1/deployments")).json()["deployments"]
        assert {d["deployment"]: d["aliases"] for d in deployments} == {
            second: ["production"],
            first: ["a"],
        }

    control(scenario)


def test_the_history_says_who_moved_what_from_where_and_why(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        second = await _deployed(world, b"two")
        await world.post("/v1/apps/shop/rollback")
        await world.post("/v1/apps/shop/promote", json={"deployment": second})
        await world.post("/v1/apps/shop/aliases/qa", json={"deployment": first})
        await world.client.delete("/v1/apps/shop/aliases/qa")

        production = [
            {"alias": "production", "from": first, "to": second, "by": "test", "reason": "promote"},
            {
                "alias": "production",
                "from": second,
                "to": first,
                "by": "test",
                "reason": "rollback",
            },
            {"alias": "production", "from": first, "to": second, "by": "test", "reason": "deploy"},
            {"alias": "production", "from": None, "to": first, "by": "test", "reason": "deploy"},
        ]
        assert await _moves(world, alias="production") == production
        assert [(m["from"], m["to"]) for m in await _moves(world, alias="qa")] == [
            (first, None),
            (None, first),
        ]
        assert await _moves(world, alias="production", limit=1) == production[:1]

    control(scenario)


def test_the_history_is_bounded(control: Control) -> None:
    async def scenario(world: World) -> None:
        await _deployed(world, b"one")
        second = await _deployed(world, b"two")
        for _ in range(MAX_MOVES):
            await world.post("/v1/apps/shop/rollback")

        moves = await _moves(world)
        assert len(moves) == MAX_MOVES
        assert moves[0]["to"] == second
        stored = await world.store.get_record("history", "shop")
        assert stored is not None
        assert len(stored.value["moves"]) == MAX_MOVES

    control(scenario)


def test_a_move_whose_answer_was_lost_is_in_the_history_once(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        second = await _deployed(world, b"two")
        world.store.lost_answers = 2  # of the history, and of the app's record

        answer = await world.post("/v1/apps/shop/rollback")
        assert answer.json()["production"] == first
        assert [(m["from"], m["to"]) for m in await _moves(world)] == [
            (second, first),
            (first, second),
            (None, first),
        ]

    control(scenario)


def test_rollback_goes_to_a_named_deployment(control: Control) -> None:
    async def scenario(world: World) -> None:
        first, _, third = [await _deployed(world, archive) for archive in (b"1", b"2", b"3")]

        answer = await world.post("/v1/apps/shop/rollback", json={"deployment": first})
        assert (answer.json()["production"], answer.json()["previous"]) == (first, third)

    control(scenario)


@pytest.mark.parametrize("name", ["production", "dpl-x", "Upper", "a--b", "a-", "x" * 21])
def test_a_name_that_is_none_for_an_alias_is_refused(control: Control, name: str) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")

        path = f"/v1/apps/shop/aliases/{name}"
        assert (await world.post(path, json={"deployment": first})).status_code == 400
        assert (await world.client.delete(path)).status_code == 400

    control(scenario)


def test_an_alias_leads_only_to_deployments_of_its_app(control: Control) -> None:
    async def scenario(world: World) -> None:
        await _deployed(world, b"one")
        other = await _deployed(world, b"two", name="other")

        answer = await world.post("/v1/apps/shop/aliases/qa", json={"deployment": other})
        assert answer.json()["code"] == "deployment_not_found"
        answer = await world.client.delete("/v1/apps/shop/aliases/qa")
        assert answer.json()["code"] == "alias_not_found"

    control(scenario)


def test_an_app_has_a_bounded_number_of_aliases(control: Control) -> None:
    async def scenario(world: World) -> None:
        first = await _deployed(world, b"one")
        paths = [f"/v1/apps/shop/aliases/a{number}" for number in range(MAX_ALIASES + 1)]
        answers = [await world.post(path, json={"deployment": first}) for path in paths]

        assert [answer.status_code for answer in answers] == [200] * MAX_ALIASES + [409]
        assert answers[-1].json()["code"] == "alias_limit"
        assert (await world.post(paths[0], json={"deployment": first})).status_code == 200

    control(scenario)


def test_a_new_app_cannot_be_called_like_an_alias_of_another(control: Control) -> None:
    async def scenario(world: World) -> None:
        await _deployed(world, b"one")

        refused = await world.deploy(b"two", name="qa--shop")
        assert refused["problem"]["code"] == "manifest_invalid"
        assert len((await world.get("/v1/deployments")).json()["deployments"]) == 1

    control(scenario)
