"""Responses that are made while they are read: chunk by chunk, slowly, and not to their end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tests.integration.gateway.gateway_peers import Client
from tests.integration.http.served import PATIENCE_SECONDS, Served, served
from tests.integration.invoker.conftest import Machine

ASGI = """
    import asyncio, json

    state = {"sent": 0, "ended": []}
    steps = asyncio.Semaphore(0)

    async def events():
        try:
            number = 0
            while True:
                yield b"id: %d\\ndata: event %d\\n\\n" % (number, number)
                number += 1
                await steps.acquire()
        finally:
            state["ended"].append("events")

    async def flood():
        try:
            for number in range(4000):
                yield bytes(10_000)
                state["sent"] = number + 1
        finally:
            state["ended"].append("flood")

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        path = scope["path"]
        if path == "/step":
            steps.release()
        headers = [(b"content-type", b"text/event-stream")] if path == "/events" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path in ("/events", "/flood"):
            body = events() if path == "/events" else flood()
            try:
                async for chunk in body:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await body.aclose()
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.body", "body": json.dumps(state).encode()})
"""
WSGI = """
    import json, threading

    state = {"sent": 0, "ended": []}
    steps = threading.Semaphore(0)

    def events():
        try:
            number = 0
            while True:
                yield b"id: %d\\ndata: event %d\\n\\n" % (number, number)
                number += 1
                while not steps.acquire(timeout=0.05):
                    yield b": still here\\n\\n"
        finally:
            state["ended"].append("events")

    def flood():
        try:
            for number in range(4000):
                yield bytes(10_000)
                state["sent"] = number + 1
        finally:
            state["ended"].append("flood")

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/upload":
            try:
                environ["wsgi.input"].read()
                state["ended"].append("took it for whole")
            except OSError:
                state["ended"].append("cut off")
        if path == "/step":
            steps.release()
        start_response("200 OK", [("content-type", "text/event-stream")])
        if path == "/events":
            return events()
        return flood() if path == "/flood" else [json.dumps(state).encode()]
"""
each_interface = pytest.mark.parametrize("main", [ASGI, WSGI], ids=["asgi", "wsgi"])


@asynccontextmanager
async def app(machine: Machine, main: str) -> AsyncGenerator[Served]:
    async with asyncio.timeout(PATIENCE_SECONDS), served(machine, machine.spec(main)) as found:
        yield found


async def ask(found: Served, path: str) -> Client:
    """Return a client that has read the head of the answer."""
    client = await found.client()
    client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    await client.head()
    return client


async def chunk(client: Client) -> bytes:
    """Return the next chunk of a response."""
    size = int(await client.reader.readuntil(b"\r\n"), 16)
    return (await client.reader.readexactly(size + 2))[:-2]


async def event(client: Client) -> bytes:
    """Return the next chunk that is no comment."""
    while (found := await chunk(client)).startswith(b":"):
        pass
    return found


async def ended(found: Served, expected: str) -> None:
    """Wait until the app says that this has ended."""
    while json.loads(await found.get("/"))["ended"] != [expected]:
        pass


@each_interface
def test_each_event_arrives_before_the_next_is_made(shared_machine: Machine, main: str) -> None:
    async def scenario() -> None:
        async with app(shared_machine, main) as found:
            client = await ask(found, "/events")
            for number in range(5):
                assert await event(client) == b"id: %d\ndata: event %d\n\n" % (number, number)
                await found.get("/step")
            await client.end()

    asyncio.run(scenario())


@each_interface
def test_a_client_that_leaves_ends_the_generator(shared_machine: Machine, main: str) -> None:
    async def scenario() -> None:
        async with app(shared_machine, main) as found:
            client = await ask(found, "/events")
            await event(client)
            await client.end()

            await ended(found, "events")

    asyncio.run(scenario())


@each_interface
def test_a_slow_reader_stops_its_generator_alone(shared_machine: Machine, main: str) -> None:
    async def scenario() -> None:
        async with app(shared_machine, main) as found:
            client = await ask(found, "/flood")
            before = -1
            while (sent := json.loads(await found.get("/"))["sent"]) != before:
                before = sent
            assert sent < 2000  # 40 MB are on offer
            await client.end()

            await ended(found, "flood")
            assert json.loads(await found.get("/"))["sent"] < 4000

    asyncio.run(scenario())


def test_an_upload_that_is_cut_off_is_not_taken_for_whole(shared_machine: Machine) -> None:
    async def scenario() -> None:
        async with app(shared_machine, WSGI) as found:
            client = await found.client()
            client.send(
                b"POST /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"5\r\nhello\r\n"
            )
            await found.get("/")
            await client.end()

            await ended(found, "cut off")

    asyncio.run(scenario())
