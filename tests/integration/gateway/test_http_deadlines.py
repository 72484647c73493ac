"""Slow clients are told so and closed; every wait has an end."""

from __future__ import annotations

import asyncio
import json

import pytest

from fluvial.wire import FrameType, Framing
from fluvial_gateway.http_limits import HttpLimits
from tests.integration.gateway.gateway_peers import GET, PATIENCE_SECONDS, open_world, run

SHORT = 0.05


@pytest.mark.parametrize("begun", [b"GET", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_does_not_end_is_a_408(begun: bytes) -> None:
    async def main() -> None:
        limits = HttpLimits(header_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            client = await world.client()
            client.send(begun)
            response = await client.response()

            assert response.status == 408
            assert json.loads(response.body)["code"] == "request_timeout"

    run(main())


def test_a_dripping_head_does_not_move_its_deadline() -> None:
    async def main() -> None:
        limits = HttpLimits(header_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            await client.response()
            answered = asyncio.ensure_future(client.response())
            sent = 0
            while not answered.done():  # paced by round trips through the gateway
                client.send(b"\r\nGET / HTTP/1.1\r\nA: b"[sent : sent + 1] or b"c")
                sent += 1
                await world.warm_again(instance)

            assert answered.result().status == 408

    run(main())


def test_a_connection_that_says_nothing_is_closed_without_a_word() -> None:
    async def main() -> None:
        limits = HttpLimits(header_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            client = await world.client()

            assert await client.rest() == b""

    run(main())


def test_an_idle_connection_is_closed_after_keep_alive() -> None:
    async def main() -> None:
        limits = HttpLimits(keep_alive_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            await client.response()

            assert await client.rest() == b""

    run(main())


@pytest.mark.parametrize("limit", ["body_idle_seconds", "body_seconds"])
def test_a_body_that_does_not_come_is_a_408_and_a_cancel(limit: str) -> None:
    async def main() -> None:
        limits = HttpLimits(**{limit: SHORT}, resolution_seconds=0.01)  # type: ignore[arg-type]
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(b"POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 9\r\n\r\nabc")
            header, _ = await instance.next(FrameType.REQUEST)
            response = await client.response()
            cancel, _ = await instance.next(FrameType.CANCEL)

            assert response.status == 408
            assert cancel[1] == header[1]

    run(main())


def test_a_client_that_does_not_read_is_dropped() -> None:
    async def main() -> None:
        limits = HttpLimits(write_stall_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            instance = await world.warm()
            client = await world.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.send(GET)
            header, _ = await instance.next(FrameType.REQUEST)
            slot, link = header[1], instance.link
            link.respond(slot, b"", framing=Framing.STREAM, more=True)
            cancelled: int | None = None
            credit = 256 * 1024
            while cancelled is None:
                while credit >= 65536:
                    link.continue_response(slot, bytes(65536), more=True)
                    credit -= 65536
                frame, _ = await instance.next_any()
                if frame[0] == FrameType.CREDIT:
                    credit += frame[2]
                elif frame[0] == FrameType.CANCEL:
                    cancelled = frame[1]

            assert cancelled == slot

    run(main())


def test_a_client_that_ignores_the_last_words_is_dropped() -> None:
    async def main() -> None:
        limits = HttpLimits(linger_seconds=SHORT, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            client = await world.client()
            client.send(b"nonsense\r\n\r\n")
            await client.response()
            assert await client.rest() == b""

            async with asyncio.timeout(PATIENCE_SECONDS):
                await world.front.until_closed()  # by this side: the client still holds it

    run(main())


def test_too_many_connections_are_refused() -> None:
    async def main() -> None:
        limits = HttpLimits(connections=1, resolution_seconds=0.01)
        async with open_world(limits=limits) as world:
            first = await world.client()
            first.send(GET)
            instance = await world.invoker.next_instance()
            second = await world.client()
            response = await second.response()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])

            assert response.status == 503
            assert response.headers["retry-after"] == "1"
            assert (await first.response()).status == 200

    run(main())
