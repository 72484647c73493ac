"""Responses: from the instance's frames to the client's bytes."""

from __future__ import annotations

import asyncio

from gateway_peers import GET, open_world

from fluvial.wire import FrameType


def test_a_get_takes_one_frame_each_way() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, body = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"hello")
            response = await client.response()

            assert (response.status, response.body) == (200, b"hello")
            assert header[3:5] == ["GET", b"/"]
            assert (header[10], body) == (False, b"")
            assert instance.no_frame()
            assert await world.recorder.next_http() == ("app", "ok", 7)

    asyncio.run(main())
