"""What instances tell of their health, and where invocations go for it."""

from __future__ import annotations

import asyncio

import pytest

from fluvial.wire import FrameType
from fluvial_gateway.health import TROUBLES
from tests.integration.gateway.gateway_peers import (
    GET,
    PATIENCE_SECONDS,
    InstancePeer,
    PeerLink,
    World,
    open_world,
    run,
    spec,
)

POST = b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\n\r\nbody"


async def _warm(world: World) -> tuple[InstancePeer, PeerLink]:
    """Return an instance that is up, and the connection of its watchdog."""
    instance = await world.warm()
    async with asyncio.timeout(PATIENCE_SECONDS):
        return instance, await instance.watched


async def _until(world: World, state: str) -> None:
    """Wait until an instance is in this state, as the gateway counts."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not world.recorder.states.get(state):
            world.recorder.changed.clear()
            await world.recorder.changed.wait()


def test_what_waits_unread_in_a_blocked_loop_goes_elsewhere() -> None:
    async def main() -> None:
        async with open_world() as world:
            blocked, watch = await _warm(world)
            clients = [await world.client() for _ in range(3)]
            for client in clients:
                client.send(POST)
            ids = [(await blocked.next_request())[1] for _ in clients]
            watch.tell_health("lag", claimed=ids[0])
            other = await world.invoker.next_instance()
            for _ in ids[1:]:
                header, body = await other.next(FrameType.REQUEST)
                assert body == b"body"
                other.link.respond(header[1], b"elsewhere")
            blocked.link.respond(ids[0], b"here")
            bodies = [(await client.response()).body for client in clients]

            assert sorted(bodies) == [b"elsewhere", b"elsewhere", b"here"]
            assert (await blocked.next(FrameType.RESUME))[0][2] == ids[-1]
            assert world.recorder.nacks == ["lag", "lag"]

    run(main())


def test_the_late_end_of_what_was_taken_back_is_nobodys() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance, watch = await _warm(world)
            client = await world.client()
            client.send(GET)
            taken = (await instance.next_request())[1]
            watch.tell_health("lag", claimed=taken - 1)
            await instance.next(FrameType.RESUME)
            instance.link.send(FrameType.NACK, taken, "lag")
            watch.tell_health()
            again = (await instance.next_request())[1]
            instance.link.respond(again, b"in the end")

            assert again > taken
            assert (await client.response()).body == b"in the end"
            assert not instance.link.lost.is_set()

    run(main())


def test_a_second_late_end_is_a_violation() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance, watch = await _warm(world)
            client = await world.client()
            client.send(GET)
            taken = (await instance.next_request())[1]
            watch.tell_health("lag", claimed=taken - 1)
            await instance.next(FrameType.RESUME)
            for _ in range(2):
                instance.link.finish(taken)

            await instance.link_lost()

    run(main())


def test_a_started_invocation_cannot_be_revoked() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance, watch = await _warm(world)
            client = await world.client()
            client.send(GET)
            started = (await instance.next_request())[1]
            instance.link.respond(started, b"begun", more=True, headers=b"content-length: 9\r\n")
            await client.head()
            watch.tell_health("lag", claimed=started - 1)

            async with asyncio.timeout(PATIENCE_SECONDS):
                await watch.lost.wait()

    run(main())


@pytest.mark.parametrize("trouble", sorted(TROUBLES))
def test_an_instance_in_trouble_gets_nothing_beside_what_it_has(trouble: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance, watch = await _warm(world)
            client, later = await world.client(), await world.client()
            client.send(GET)
            running = (await instance.next_request())[1]
            watch.tell_health(trouble)
            await _until(world, "paused")
            later.send(GET)
            other = await world.invoker.next_instance()
            header, _ = await other.next(FrameType.REQUEST)
            other.link.respond(header[1], b"elsewhere")
            instance.link.respond(running)

            assert (await later.response()).body == b"elsewhere"
            assert (await client.response()).status == 200
            assert instance.no_frame()

    run(main())


def test_a_healthy_sample_ends_a_pause() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance, watch = await _warm(world)
            client, later = await world.client(), await world.client()
            client.send(GET)
            running = (await instance.next_request())[1]
            later.send(GET)
            refused = (await instance.next_request())[1]
            watch.tell_health("memory")
            await _until(world, "paused")
            instance.link.send(FrameType.NACK, refused, "memory")
            watch.tell_health()
            again = (await instance.next_request())[1]
            instance.link.respond(again, b"with room")
            instance.link.respond(running)

            assert (await later.response()).body == b"with room"
            assert world.recorder.nacks == ["memory"]

    run(main())


def test_a_measured_limit_bounds_what_is_sent() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=2)) as world:
            instance, watch = await _warm(world)
            watch.tell_health(limit=1)
            watch.tell_health("cpu", limit=1)
            await _until(world, "paused")
            watch.tell_health(limit=1)
            clients = [await world.client() for _ in range(2)]
            clients[0].send(GET)
            running = (await instance.next_request())[1]
            clients[1].send(GET)
            other = await world.invoker.next_instance()
            header, _ = await other.next(FrameType.REQUEST)
            other.link.respond(header[1])
            instance.link.respond(running)

            assert [(await client.response()).status for client in clients] == [200, 200]

    run(main())


def test_an_instance_without_a_watchdog_is_tried_again_after_a_while() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance = await world.warm()
            instance.watched.result().transport.abort()
            client = await world.client()
            client.send(GET)
            refused = (await instance.next_request())[1]
            instance.link.send(FrameType.NACK, refused, "descriptors")
            again = (await instance.next_request())[1]
            instance.link.respond(again)

            assert (await client.response()).status == 200

    run(main())


@pytest.mark.parametrize(
    "fields",
    [
        (),
        ("lag", -1),
        (b"lag", -1, [1] * 7),
        ("lag", "0", [1] * 7),
        ("lag", -1, [1] * 6),
        ("lag", -1, [1, 1, 1, 1, 1, 1, -1]),
        ("lag", -1, [1, 1, 1, 1, 1, 1, 1 << 60]),
        ("lag", -1, 7),
    ],
    ids=["none", "few", "bytes", "text", "short", "negative", "large", "number"],
)
def test_malformed_health_costs_the_watchdog_its_connection(fields: tuple[object, ...]) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance, watch = await _warm(world)
            watch.send(FrameType.HEALTH, 0, *fields)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await watch.lost.wait()
            await world.warm_again(instance)

            assert not instance.link.lost.is_set()

    run(main())
