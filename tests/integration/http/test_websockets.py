"""WebSockets end to end: a client library, the data plane, and ASGI apps in real instances."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from tests.integration.http.served import PATIENCE_SECONDS, Served, served
from tests.integration.invoker.conftest import Machine

APP = """
    import asyncio, json, os

    ended = []
    state = {"sent": 0}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError
        if scope["type"] == "http":
            body = json.dumps({"ended": ended, "pid": os.getpid(), **state}).encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})
            return
        assert (await receive())["type"] == "websocket.connect"
        try:
            await globals()[scope["path"][1:]](scope, receive, send)
        except asyncio.CancelledError:
            ended.append([scope["path"], "cancelled"])
            raise

    async def echo(scope, receive, send):
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        ended.append([scope["path"], message["code"], message["reason"]])

    async def scope(scope, receive, send):
        await send({"type": "websocket.accept", "subprotocol": "b",
                    "headers": [(b"x-one", b"1"), (b"connection", b"x-two"), (b"x-two", b"2")]})
        text = json.dumps(scope, default=lambda value: value.decode())
        await send({"type": "websocket.send", "text": text})

    async def close(scope, receive, send):
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4321, "reason": "enough"})
        ended.append([scope["path"], (await receive())["code"]])

    async def fail(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise ValueError("on purpose")

    async def forbid(scope, receive, send):
        await send({"type": "websocket.close"})

    async def deny(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 401,
                    "headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async def crash(scope, receive, send):
        raise ValueError("on purpose")

    async def flood(scope, receive, send):
        await send({"type": "websocket.accept"})
        for number in range(4000):
            await send({"type": "websocket.send", "bytes": bytes(10_000)})
            state["sent"] = number + 1

    async def deaf(scope, receive, send):
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    async def stubborn(scope, receive, send):
        await send({"type": "websocket.accept"})
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                state["cancels"] = state.get("cancels", 0) + 1
                raise
"""


@asynccontextmanager
async def app(machine: Machine, **settings: Any) -> AsyncGenerator[Served]:
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        served(machine, machine.spec(APP, **settings)) as found,
    ):
        yield found


async def ended(found: Served, count: int = 1) -> list[Any]:
    """Return how the WebSockets ended, by what the app says, once so many have."""
    for _ in range(count):
        await found.recorder.next_http()
    said: list[Any] = json.loads(await found.get("/"))["ended"]
    return said


def test_texts_and_bytes_go_both_ways(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo"), compression=None) as client:
                for message in ("hello", "", "größer 😀", b"", bytes(range(256)), "x" * 70_000):
                    await client.send(message)
                    assert await client.recv() == message
                await client.close(4000, "bye")

            assert await ended(found) == [["/echo", 4000, "bye"]]
            assert (client.close_code, client.close_reason) == (4000, "bye")

    asyncio.run(main())


def test_a_jail_has_websockets_too(shared_machine: Machine) -> None:
    async def main() -> None:
        async with (
            app(shared_machine, isolation="jail") as found,
            connect(found.url("/echo")) as client,
        ):
            await client.send("hello")
            assert await client.recv() == "hello"

    asyncio.run(main())


def test_the_handshake_is_as_the_app_wants_it(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            url = found.url("/scope?q=1")
            async with connect(url, subprotocols=["a", "b"], compression=None) as client:  # type: ignore[list-item]  # NewType
                scope = json.loads(await client.recv())
                assert client.response is not None
                headers = client.response.headers

            assert client.subprotocol == "b"
            assert (headers["x-one"], headers.get("x-two")) == ("1", None)
            assert headers["x-fluvial-invocation-id"].startswith("inv_")
            assert scope["type"] == "websocket"
            assert scope["scheme"] == "ws"
            assert (scope["path"], scope["query_string"]) == ("/scope", "q=1")
            assert scope["subprotocols"] == ["a", "b"]
            assert scope["extensions"] == {"websocket.http.response": {}}
            assert ["upgrade", "websocket"] in scope["headers"]
            assert "method" not in scope
            assert client.close_code == 1000

    asyncio.run(main())


def test_the_apps_own_close_arrives(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/close")) as client:
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert (client.close_code, client.close_reason) == (4321, "enough")
            assert await ended(found) == [["/close", 4321]]

    asyncio.run(main())


def test_a_failure_closes_with_1011(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/fail")) as client:
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert client.close_code == 1011
            assert (await found.recorder.next_http())[:2] == ("demo", "error")
            await shared_machine.logged("on purpose")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/forbid", 403, b""), ("/deny", 401, b"who are you?"), ("/crash", 500, None)],
)
def test_a_handshake_can_be_denied(
    shared_machine: Machine, path: str, status: int, body: bytes | None
) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            with pytest.raises(InvalidStatus) as refused:
                await connect(found.url(path))

            response = refused.value.response
            assert response.status_code == status
            assert body is None or response.body == body
            assert b"on purpose" not in (response.body or b"")
            if status == 401:
                assert response.headers["www-authenticate"] == "Bearer"

    asyncio.run(main())


def test_fragments_become_one_message_and_pings_pass_between_them(shared_machine: Machine) -> None:
    async def main() -> None:
        async with (
            app(shared_machine) as found,
            connect(found.url("/echo"), compression=None) as client,
        ):

            async def fragments() -> AsyncGenerator[str]:
                yield "gr"
                pong = await client.ping(b"between")
                yield "öß"
                await pong
                yield "er"

            await client.send(fragments())
            assert await client.recv() == "größer"

    asyncio.run(main())


def raw(opcode: Opcode, data: bytes, *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=mask)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(raw(Opcode.TEXT, b"\xff"), 1007, id="invalid_utf8"),
        pytest.param(
            raw(Opcode.TEXT, b"\xc3", fin=False) + raw(Opcode.CONT, b"("),
            1007,
            id="utf8_broken_between_fragments",
        ),
        pytest.param(raw(Opcode.CONT, b"a"), 1002, id="continuation_of_nothing"),
        pytest.param(raw(Opcode.TEXT, b"a", mask=False), 1002, id="unmasked"),
        pytest.param(b"\x09\x80\0\0\0\0", 1002, id="fragmented_ping"),
        pytest.param(b"\xc1\x80\0\0\0\0", 1002, id="reserved_bit"),
        pytest.param(b"\x83\x80\0\0\0\0", 1002, id="reserved_opcode"),
        pytest.param(raw(Opcode.CLOSE, b"\x03\xed"), 1002, id="reserved_close_code"),
        pytest.param(raw(Opcode.CLOSE, b""), 1005, id="close_without_code"),
        pytest.param(raw(Opcode.CLOSE, b"\x0f\xa0ok"), 4000, id="close"),
    ],
)
def test_what_breaks_the_protocol_closes_with_the_code_that_says_so(
    shared_machine: Machine, data: bytes, code: int
) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo"), compression=None) as client:
                client.transport.write(data)
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert client.protocol.close_rcvd is None or client.close_code == code
            assert (await ended(found))[0][1] == code

    asyncio.run(main())


def test_a_message_above_the_limit_closes_with_1009(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo"), compression=None) as client:
                await client.send(bytes(16 * 1024 * 1024 + 1))
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert (await ended(found))[0][1] == 1009

    asyncio.run(main())


def test_a_client_that_does_not_read_stops_its_app_alone(shared_machine: Machine) -> None:
    async def main() -> None:
        async with (
            app(shared_machine) as found,
            connect(found.url("/flood"), compression=None, max_queue=1) as client,
        ):
            await client.recv()
            before = -1
            while (sent := json.loads(await found.get("/"))["sent"]) != before:
                before = sent

            assert sent < 2000  # 40 MB are on offer
            for _ in range(3999):
                await client.recv()
            assert json.loads(await found.get("/"))["sent"] == 4000

    asyncio.run(main())


async def send_megabytes(client: ClientConnection, count: int) -> None:
    with suppress(ConnectionClosed):
        for _ in range(count):
            await client.send(bytes(1_000_000))


def test_an_app_that_does_not_read_stops_its_client_alone(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/deaf"), compression=None) as client:
                pong = await client.ping()
                await pong  # a ping is answered all the same
                sending = asyncio.create_task(send_megabytes(client, 50))
                done, _ = await asyncio.wait((sending,), timeout=0.5)
                assert not done
                assert json.loads(await found.get("/"))["ended"] == []
                # What its kernel has not sent yet would hold an orderly end back, too.
                reset = struct.pack("ii", 1, 0)
                peer = client.transport.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                client.transport.abort()
                await asyncio.wait((sending,))

            assert await ended(found, 2) == [["/deaf", "cancelled"]]

    asyncio.run(main())


def test_a_client_that_vanishes_is_a_disconnect_with_1006(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            client = await connect(found.url("/echo"))
            await client.send("a")
            await client.recv()
            client.transport.abort()

            assert await ended(found) == [["/echo", 1006, ""]]

    asyncio.run(main())


def test_max_duration_closes_with_1001(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine, max_duration_seconds=0.5) as found:
            async with connect(found.url("/echo")) as client:
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert (client.close_code, client.close_reason) == (1001, "max_duration")
            app_name, outcome, _ = await found.recorder.next_http()
            assert (app_name, outcome) == ("demo", "timeout")
            assert json.loads(await found.get("/"))["ended"] == [["/echo", 1001, "max_duration"]]

    asyncio.run(main())


def test_an_instance_that_stops_closes_with_1012(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo")) as client:
                pid = json.loads(await found.get("/"))["pid"]
                os.kill(pid, signal.SIGTERM)
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert client.close_code == 1012

    asyncio.run(main())


def test_a_gateway_that_stops_closes_with_1012(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo")) as client:
                draining = asyncio.create_task(found.front.drain(PATIENCE_SECONDS))
                with pytest.raises(ConnectionClosed):
                    await client.recv()
            await draining

            assert client.close_code == 1012

    asyncio.run(main())
