"""The listener: uvicorn's server around our protocol class, started and drained."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator

import pytest

from fluvial.wire import FrameType
from fluvial_gateway.data_plane import DataPlane
from fluvial_gateway.hosts import HostTable, Routes
from tests.integration.gateway.gateway_peers import GET, PATIENCE_SECONDS, World, open_world, run


@contextlib.asynccontextmanager
async def _serving(world: World) -> AsyncGenerator[tuple[DataPlane, asyncio.Task[None]]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        routes = Routes(production={"app": "dpl_one"})
        plane = DataPlane(world.router, HostTable(routes), listener=listener)
        serving = asyncio.ensure_future(plane.serve())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await plane.started.wait()
        world.port = listener.getsockname()[1]
        yield plane, serving
        for client in world.clients:
            await client.end()
        await plane.drain(0.0)
        await serving


def test_it_serves_and_returns_after_the_drain() -> None:
    async def main() -> None:
        async with open_world() as world, _serving(world) as (plane, serving):
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"served")
            assert (await client.response()).body == b"served"
            await plane.drain(PATIENCE_SECONDS)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await serving

            assert await client.rest() == b""

    run(main())


def test_a_drain_finishes_what_is_under_way_and_says_close() -> None:
    async def main() -> None:
        async with open_world() as world, _serving(world) as (plane, _):
            busy, idle = await world.client(), await world.client()
            busy.send(GET)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            draining = asyncio.ensure_future(plane.drain(PATIENCE_SECONDS))
            assert await idle.rest() == b""
            assert not draining.done()
            instance.link.respond(header[1], b"last")
            response = await busy.response()
            await draining

            assert (response.body, response.headers["connection"]) == (b"last", "close")

    run(main())


def test_a_drain_ends_at_its_deadline() -> None:
    async def main() -> None:
        async with open_world() as world, _serving(world) as (plane, _):
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            await plane.drain(0.02)
            cancel, _ = await instance.next(FrameType.CANCEL)

            assert cancel[1] == header[1]
            assert await client.rest() == b""

    run(main())


def test_nobody_is_accepted_after_the_drain() -> None:
    async def main() -> None:
        async with open_world() as world, _serving(world) as (plane, serving):
            await plane.drain(PATIENCE_SECONDS)
            await serving

            with pytest.raises(ConnectionRefusedError):
                await world.client()

    run(main())
