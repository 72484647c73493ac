"""Requests that may go elsewhere: clients with a pin, and the two sides of a rollout."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fluvial_gateway.hosts import RolloutRoute, Routes
from fluvial_gateway.rollout_counts import RolloutCounts
from tests.integration.gateway.gateway_peers import (
    Client,
    InstancePeer,
    PeerLink,
    Response,
    World,
    open_world,
    run,
)

OLD, NEW, LEFT = (f"dpl_{letter * 24}" for letter in "onl")
OTHER = "dpl_" + "x" * 24  # exists, but nobody may be pinned to it
ALL = (OLD, NEW, LEFT, OTHER)


@dataclass
class Rolling:
    """A rollout's route whose counts tell a test."""

    percent: int
    told: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.counts = RolloutCounts(lambda: 0.0, self.told.append)

    def route(self, percent: int | None = None) -> RolloutRoute:
        return RolloutRoute(NEW, percent or self.percent, b"salt", self.counts)


def routes(rolling: Rolling | None = None, **more: Any) -> Routes:
    """An app with four deployments."""
    return Routes(
        production={"app": OLD},
        aliases={"app": {"qa": NEW}},
        deployments=dict.fromkeys(ALL, "app"),
        pins={"app": {OLD, NEW, LEFT}},
        rollouts={} if rolling is None else {"app": rolling.route()},
        **more,
    )


def answers(peer: InstancePeer, status: int = 200) -> None:
    def answer(link: PeerLink, header: list[Any], body: bytes) -> None:
        link.respond(header[1], status=status)

    peer.answering = answer


async def ask(client: Client, *headers: str, host: str = "app.localhost") -> Response:
    lines = "".join(f"{header}\r\n" for header in headers)
    client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode())
    return await client.response()


async def served_by(world: World, *headers: str, host: str = "app.localhost") -> str:
    response = await ask(await world.client(), *headers, host=host)
    return response.headers["x-fluvial-deployment"]


@contextlib.asynccontextmanager
async def opened(status: int = 200) -> AsyncGenerator[World]:
    """A world with the four deployments, whose instances answer by themselves."""
    async with open_world(also=ALL) as world:
        world.invoker.prepare = [lambda peer: answers(peer, status)] * 8
        yield world


@pytest.mark.parametrize(
    ("headers", "host", "expected"),
    [
        ((), "app.localhost", OLD),
        ((f"x-fluvial-deployment: {LEFT}",), "app.localhost", LEFT),
        ((f"cookie: a=b; __fluvial_dpl={LEFT}; c=d",), "app.localhost", LEFT),
        ((f"x-fluvial-deployment: {NEW}", f"cookie: __fluvial_dpl={LEFT}"), "app.localhost", NEW),
        ((f"x-fluvial-deployment: {LEFT}",), "qa--app.localhost", LEFT),
        ((f"x-fluvial-deployment: {OTHER}",), "app.localhost", OLD),
        (("x-fluvial-deployment: nonsense",), "app.localhost", OLD),
        ((f"cookie: x__fluvial_dpl={LEFT}",), "app.localhost", OLD),
        (
            (f"cookie: __fluvial_dpl={LEFT}", "sec-fetch-mode: navigate"),
            "app.localhost",
            OLD,
        ),
        (
            (f"x-fluvial-deployment: {LEFT}",),
            f"{OTHER.replace('_', '-')}.localhost",
            OTHER,
        ),
    ],
    ids=[
        *("no pin", "header", "cookie", "the header goes first", "an alias too"),
        *("not pinnable", "no deployment", "another cookie", "a page anew", "a preview stays"),
    ],
)
def test_a_client_goes_on_where_it_asks_to_if_that_is_allowed(
    headers: tuple[str, ...], host: str, expected: str
) -> None:
    async def main() -> None:
        async with opened() as world:
            world.front.hosts.replace(routes())

            assert await served_by(world, *headers, host=host) == expected

    run(main())


def test_the_app_sees_cookies_as_they_came_and_no_pin() -> None:
    async def main() -> None:
        async with open_world(also=ALL) as world:
            world.front.hosts.replace(routes())
            client = await world.client()
            cookie = f"a=b; __fluvial_dpl={LEFT}"
            client.send(
                f"GET / HTTP/1.1\r\nHost: app.localhost\r\nCookie: {cookie}\r\n"
                f"X-Fluvial-Deployment: {NEW}\r\nAccept: x\r\n\r\n".encode()
            )
            header = await (await world.invoker.next_instance()).next_request()

            names = [name for name, _ in header[5]]
            assert names[:3] == [b"host", b"cookie", b"accept"]
            assert header[5][1][1] == cookie.encode()

    run(main())


def test_a_pin_cookie_is_given_where_the_app_wants_it() -> None:
    async def main() -> None:
        async with opened() as world:
            world.front.hosts.replace(routes(pin_cookies={"app": 60}))
            fresh = await ask(await world.client())
            pinned = await ask(await world.client(), f"x-fluvial-deployment: {LEFT}")

            assert fresh.headers["set-cookie"] == (
                f"__fluvial_dpl={OLD}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"
            )
            assert "set-cookie" not in pinned.headers

    run(main())


def test_a_rollout_splits_clients_by_its_percentage() -> None:
    async def main() -> None:
        async with opened() as world:
            world.front.hosts.replace(routes(Rolling(20)))
            found = [
                await served_by(world, f"cookie: __fluvial_client={number:016x}")
                for number in range(200)
            ]

            assert 20 <= found.count(NEW) <= 60
            assert set(found) == {OLD, NEW}

    run(main())


def test_a_client_stays_on_its_side_while_the_share_grows() -> None:
    async def main() -> None:
        async with opened() as world:
            rolling = Rolling(10)
            clients = [f"cookie: __fluvial_client={number:016x}" for number in range(60)]
            moved: set[str] = set()
            for percent in (10, 50, 99):
                rolling.percent = percent
                world.front.hosts.replace(routes(rolling))
                found = {each for each in clients if await served_by(world, each) == NEW}
                assert moved <= found
                moved = found

    run(main())


def test_a_client_without_a_cookie_gets_one_that_keeps_it_on_its_side() -> None:
    async def main() -> None:
        async with opened() as world:
            world.front.hosts.replace(routes(Rolling(50)))
            for number in range(10):
                agent = f"user-agent: browser {number}"
                first = await ask(await world.client(), agent)
                match = re.match(
                    r"(__fluvial_client=[0-9a-f]{16}); Path=/; Max-Age=86400",
                    first.headers["set-cookie"],
                )
                assert match is not None
                served = first.headers["x-fluvial-deployment"]
                assert await served_by(world, agent) == served
                again = await ask(await world.client(), f"cookie: {match[1]}")
                assert again.headers["x-fluvial-deployment"] == served
                assert "set-cookie" not in again.headers

    run(main())


def test_only_the_host_of_production_is_split() -> None:
    async def main() -> None:
        async with opened() as world:
            world.front.hosts.replace(routes(Rolling(99)))
            token = "cookie: __fluvial_client=0000000000000001"

            preview = f"{LEFT.replace('_', '-')}.localhost"
            assert await served_by(world, token, host=preview) == LEFT
            assert await served_by(world, token) == NEW
            # whoever came with a page of the old one goes on there
            assert await served_by(world, token, f"x-fluvial-deployment: {OLD}") == OLD

    run(main())


def test_errors_of_the_new_side_are_counted_and_told() -> None:
    async def main() -> None:
        async with opened(500) as world:
            rolling = Rolling(99)
            world.front.hosts.replace(routes(rolling))
            client = await world.client()
            for _ in range(5):
                response = await ask(client, "cookie: __fluvial_client=0000000000000001")
                assert (response.status, rolling.counts.new.view().answers > 0) == (500, True)

            assert len(rolling.told) == 1

    run(main())


def test_an_answer_that_never_comes_counts_as_an_error() -> None:
    async def main() -> None:
        async with open_world(also=ALL) as world:
            rolling = Rolling(99)
            world.front.hosts.replace(routes(rolling))
            client = await world.client()
            client.send(
                b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 0\r\n"
                b"Cookie: __fluvial_client=0000000000000001\r\n\r\n"
            )
            instance = await world.invoker.next_instance()
            await instance.next_request()
            await instance.die()
            assert (await client.response()).status >= 500

            assert rolling.counts.new.view().errors == 1

    run(main())
