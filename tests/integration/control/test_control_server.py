"""The control listener on a real socket: streams as they are made, and an orderly stop."""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from fluvial.events import Event, EventType
from fluvial_gateway.control_server import ControlServer
from fluvial_queue.contract import RunStatus
from tests.integration.control.world import World

Control = Callable[..., None]


@asynccontextmanager
async def _served(
    world: World,
) -> AsyncGenerator[tuple[ControlServer, httpx.AsyncClient], None]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = ControlServer(world.app, world.waits, listener=listener)
    serving = asyncio.create_task(server.serve())
    await server.started.wait()
    headers = {"authorization": f"Bearer {world.token}"}
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers)
    try:
        async with client:
            yield server, client
    finally:
        await server.drain(1.0)
        await serving


def test_follower_gets_each_event_when_it_happens(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        async with _served(world) as (_, client):
            path, accept = f"/v1/runs/{run_id}/events", {"accept": "text/event-stream"}
            async with client.stream("GET", path, headers=accept) as response:
                received = response.aiter_lines()
                await anext(received)  # the run is quiet: a comment
                started = Event(EventType.RUN_STARTED, 1, 0, b"1", {})
                await world.record(run_id, started, status=RunStatus.RUNNING)
                first = [line async for line in _until(received, "id: 0")]
                await world.record(
                    run_id, Event(EventType.RUN_COMPLETED, 2, 0, b"2"), status=RunStatus.COMPLETED
                )
                rest = [line async for line in received]

            assert first
            assert "id: 1" in rest

    control(scenario)


def test_deploy_streams_its_log_while_it_builds(control: Control) -> None:
    async def scenario(world: World) -> None:
        world.builder.go_on = asyncio.Event()
        digest = hashlib.sha256(b"x").hexdigest()
        async with _served(world) as (_, client):
            headers = {"x-fluvial-bundle-digest": digest}
            deploying = client.stream("POST", "/v1/deployments", content=b"x", headers=headers)
            async with deploying as response:
                received = response.aiter_lines()
                building = await anext(received)
                world.builder.go_on.set()
                built = await anext(received)

            assert "installing" in building
            assert '"created":true' in built

    control(scenario)


def test_drain_ends_followers_in_order_and_refuses_newcomers(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        async with _served(world) as (server, client):
            path, accept = f"/v1/runs/{run_id}/events", {"accept": "text/event-stream"}
            async with client.stream("GET", path, headers=accept) as response:
                received = response.aiter_lines()
                await anext(received)
                await server.drain(5.0)
                left = [line async for line in received]  # ends without a broken connection

            assert all(not line or line.startswith(":") for line in left)

    control(scenario)


def test_head_above_the_limit_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        async with _served(world) as (_, client):
            response = await client.get("/livez", headers={"x-long": "x" * 40_000})

            assert response.status_code == 431
            assert response.json()["code"] == "headers_too_large"

    control(scenario)


async def _until(lines: AsyncIterator[str], last: str) -> AsyncIterator[str]:
    async for line in lines:
        yield line
        if line == last:
            return


def test_loopback_listener_answers_to_its_own_names_only(control: Control) -> None:
    """A page whose name was made to point at 127.0.0.1 gets nothing, not even the metrics."""

    async def scenario(world: World) -> None:
        async with _served(world) as (_, client):
            ours = ("localhost:8081", "127.0.0.1", "[::1]:8081", "control.localhost")
            theirs = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "a b")
            for host in ours:
                assert (await client.get("/metrics", headers={"host": host})).status_code == 200
            for host in theirs:
                for path in ("/metrics", "/openapi.json", "/v1/apps"):
                    answer = await client.get(path, headers={"host": host})
                    assert answer.status_code in (400, 421), host
                    assert "fluvial_" not in answer.text

    control(scenario)
