"""WebSockets in the gateway: the handshake, and a tunnel of bytes that it does not look into."""

from __future__ import annotations

import asyncio
import json

import pytest

from fluvial.wire import INITIAL_CREDIT, FrameType, Framing
from fluvial_gateway.http_limits import HttpLimits
from tests.integration.gateway.gateway_peers import (
    GET,
    PATIENCE_SECONDS,
    Client,
    InstancePeer,
    World,
    open_world,
    run,
    spec,
)

HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: app.localhost\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
PROTOCOL = b"sec-websocket-protocol: a\r\n"


def switch(instance: InstancePeer, slot: int, headers: bytes = PROTOCOL, body: bytes = b"") -> None:
    """Accept the handshake."""
    head = b"HTTP/1.1 101 Switching Protocols\r\n" + headers
    fields = (101, len(head), int(Framing.TUNNEL), True)
    instance.link.send(FrameType.RESPONSE, slot, *fields, body=head + body)


async def open_tunnel(world: World) -> tuple[Client, InstancePeer, int]:
    """Return a client with a tunnel, the instance behind it, and the invocation's slot."""
    client = await world.client()
    client.send(HANDSHAKE)
    instance = await world.invoker.next_instance()
    header, _ = await instance.next(FrameType.REQUEST)
    switch(instance, header[1])
    assert (await client.head())[0] == 101
    return client, instance, header[1]


def test_the_gateway_answers_the_key_and_the_instance_the_rest() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(HANDSHAKE)
            instance = await world.invoker.next_instance()
            header, body = await instance.next(FrameType.REQUEST)
            switch(instance, header[1], body=b"\x81\x01a")
            status, headers = await client.head()

            assert (status, header[7], header[10], body) == (101, "ws", True, b"")
            # the example of RFC 6455 §1.3
            assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            assert (headers["upgrade"], headers["connection"]) == ("websocket", "upgrade")
            assert headers["sec-websocket-protocol"] == "a"
            assert headers["x-fluvial-invocation-id"] == header[2]
            assert "content-length" not in headers
            assert await client.next_bytes() == b"\x81\x01a"

    run(main())


def test_bytes_pass_both_ways_until_the_instance_ends_it() -> None:
    async def main() -> None:
        async with open_world() as world:
            client, instance, slot = await open_tunnel(world)
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            header, body = await instance.next(FrameType.REQUEST_BODY)
            instance.link.continue_response(slot, b"HTTP/1.1 200 OK\r\n\r\n", more=True)
            instance.link.continue_response(slot, b"bye", more=False)
            instance.link.finish(slot)

            assert (header[1:3], body) == ([slot, True], b"GET / HTTP/1.1\r\n\r\n")
            assert await client.rest() == b"HTTP/1.1 200 OK\r\n\r\nbye"
            assert (await world.recorder.next_http())[:2] == ("app", "ok")

    run(main())


def test_what_comes_behind_the_handshake_is_the_tunnels() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(HANDSHAKE + b"early")
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            assert instance.no_frame()
            switch(instance, header[1])

            assert (await instance.next(FrameType.REQUEST_BODY))[1] == b"early"

    run(main())


def test_a_denial_leaves_an_ordinary_connection() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(HANDSHAKE)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"no", status=403)
            denial = await client.response()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])

            assert (denial.status, denial.body) == (403, b"no")
            assert (await client.response()).body == b"hello"

    run(main())


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"upgrade: h2c\r\n", id="upgrade"),
        pytest.param(b"connection: close\r\n", id="connection"),
        pytest.param(b"content-length: 5\r\n", id="length"),
        pytest.param(b"Sec-WebSocket-Accept: forged\r\n", id="accept"),
        pytest.param(b"x-fluvial-invocation-id: forged\r\n", id="internal"),
        pytest.param(b"a: b\n\r\nforged", id="malformed"),
    ],
)
def test_a_bad_switch_is_a_502(headers: bytes) -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(HANDSHAKE)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            switch(instance, header[1], headers)
            response = await client.response()

            assert response.status == 502
            assert json.loads(response.body)["code"] == "bad_response"
            await instance.next(FrameType.CANCEL)

    run(main())


def test_nobody_is_switched_who_has_not_asked() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            switch(instance, header[1])
            response = await client.response()

            assert json.loads(response.body)["code"] == "bad_response"

    run(main())


def test_a_client_that_leaves_cancels_its_invocation() -> None:
    async def main() -> None:
        async with open_world() as world:
            client, instance, slot = await open_tunnel(world)
            client.close()
            cancel, _ = await instance.next(FrameType.CANCEL)

            assert cancel[1:] == [slot, "the client disconnected"]

    run(main())


@pytest.mark.parametrize("end", ["death", "silence"])
def test_an_end_without_a_close_breaks_the_connection(end: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            client, instance, slot = await open_tunnel(world)
            if end == "death":
                await instance.die()
            else:
                instance.link.finish(slot)

            assert await client.rest() == b""

    run(main())


def test_a_drain_asks_the_instance_to_close() -> None:
    async def main() -> None:
        async with open_world() as world:
            client, instance, slot = await open_tunnel(world)
            draining = asyncio.create_task(world.front.drain(PATIENCE_SECONDS))
            cancel, _ = await instance.next(FrameType.CANCEL)
            instance.link.continue_response(slot, b"\x88\x02\x03\xf4", more=False)
            instance.link.finish(slot, "cancelled")

            assert cancel[1:] == [slot, "draining"]
            assert await client.rest() == b"\x88\x02\x03\xf4"
            client.close()
            await draining

    run(main())


def test_max_duration_is_told_to_the_instance_which_may_say_good_bye() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_duration_seconds=0.05)) as world:
            client, instance, slot = await open_tunnel(world)
            cancel, _ = await instance.next(FrameType.CANCEL)
            instance.link.continue_response(slot, b"\x88\x02\x03\xe9", more=False)
            instance.link.finish(slot, "timeout")

            assert cancel[1:] == [slot, "timeout"]
            assert await client.rest() == b"\x88\x02\x03\xe9"
            assert (await world.recorder.next_http())[:2] == ("app", "timeout")

    run(main())


def test_a_handshake_that_takes_too_long_is_a_504() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_duration_seconds=0.05)) as world:
            client = await world.client()
            client.send(HANDSHAKE)
            response = await client.response()

            assert response.status == 504

    run(main())


def test_what_an_instance_does_not_take_is_not_read_from_the_client() -> None:
    async def main() -> None:
        limits = HttpLimits(resolution_seconds=0.01, hang_up_seconds=0.01)
        async with open_world(limits=limits) as world:
            client, instance, slot = await open_tunnel(world)
            client.send(bytes(4 * INITIAL_CREDIT))
            taken = 0
            while taken < INITIAL_CREDIT:
                taken += len((await instance.next(FrameType.REQUEST_BODY))[1])
            await world.warm_again(instance)
            assert instance.no_frame()
            instance.link.send(FrameType.CREDIT, slot, 3 * INITIAL_CREDIT)
            while taken < 4 * INITIAL_CREDIT:
                taken += len((await instance.next(FrameType.REQUEST_BODY))[1])

            assert taken == 4 * INITIAL_CREDIT

    run(main())
