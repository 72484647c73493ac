"""Custom domains through the control API: added, routed, refused, removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fluvial_gateway.domains import MAX_DOMAINS
from tests.integration.control.world import World

Control = Callable[..., None]
DOMAINS = "/v1/apps/shop/domains"


def test_a_domain_leads_to_production_at_once_and_follows_it(control: Control) -> None:
    async def scenario(world: World) -> None:
        for archive in (b"one", b"two"):
            deployed = (await world.deploy(archive))["deployment"]["deployment"]
            added = await world.post(DOMAINS, json={"host": "Shop.Example.com."})

            assert added.json() == {
                "app": "shop",
                "host": "shop.example.com",
                "url": "http://shop.example.com:8080",
            }
            destination = world.hosts.find(b"shop.example.com")
            assert destination is not None
            assert (destination.app, destination.deployment) == ("shop", deployed)
        assert len((await world.get(DOMAINS)).json()["domains"]) == 1
        removed = await world.client.delete(f"{DOMAINS}/SHOP.example.com")
        assert removed.status_code == 204
        assert world.hosts.find(b"shop.example.com") is None
        assert (await world.get(DOMAINS)).json() == {"domains": []}

    control(scenario)


def test_a_domain_is_one_apps_alone(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"one")
        await world.deploy(b"two", name="other")
        asked = [
            world.post(f"/v1/apps/{app}/domains", json={"host": "a.example"})
            for app in ("shop", "other", "shop", "other")
        ]
        answers = await asyncio.gather(*asked)

        won = {answer.json()["app"] for answer in answers if answer.status_code == 200}
        assert len(won) == 1
        codes = [answer.json()["code"] for answer in answers if answer.status_code != 200]
        assert codes == ["domain_conflict"] * 2
        (loser,) = {"shop", "other"} - won
        stolen = await world.client.delete(f"/v1/apps/{loser}/domains/a.example")
        assert (stolen.status_code, stolen.json()["code"]) == (404, "domain_not_found")
        assert world.hosts.find(b"a.example") is not None

    control(scenario)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("localhost", "whose names the platform gives"),
        ("other.localhost", "whose names the platform gives"),
        ("*.example.com", "has a wildcard"),
        ("größe.example", "punycode"),
        ("https://a.example", "is not a DNS name"),
        ("a.example:80", "is not a DNS name"),
        ("a..example", "is not a DNS name"),
        ("-a.example", "is not a DNS name"),
        ("example", "is not a DNS name"),
        ("127.0.0.1", "is not a DNS name"),
        ("a_b.example", "is not a DNS name"),
        (".".join(["a" * 63] * 4), "is not a DNS name"),
    ],
)
def test_names_that_no_app_can_have(control: Control, host: str, reason: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"one")
        answer = await world.post(DOMAINS, json={"host": host[:254]})

        assert answer.status_code == 400, answer.json()
        assert reason in answer.json()["detail"]

    control(scenario)


def test_an_app_has_only_so_many_domains(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy(b"one")
        for number in range(MAX_DOMAINS):
            await world.catalogue.add_host(f"{number}.example", "shop")

        answer = await world.post(DOMAINS, json={"host": "more.example"})
        assert (answer.status_code, answer.json()["code"]) == (409, "domain_limit")
        assert (await world.post(DOMAINS, json={"host": "7.example"})).status_code == 200

    control(scenario)


def test_an_app_that_was_never_deployed_has_no_domains(control: Control) -> None:
    async def scenario(world: World) -> None:
        answer = await world.post("/v1/apps/nobody/domains", json={"host": "a.example"})
        assert answer.json()["code"] == "app_not_found"
        assert (await world.get("/v1/apps/nobody/domains")).status_code == 404

    control(scenario)
