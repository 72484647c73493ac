"""WebSockets of WSGI apps: flask-sock, whose simple-websocket takes the socket from `environ`."""

from __future__ import annotations

import asyncio
import json
import os
import sysconfig
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integration.http.served import PATIENCE_SECONDS, Served, served
from tests.integration.invoker.conftest import Machine

PACKAGES = (
    *("flask", "werkzeug", "jinja2", "markupsafe", "click", "itsdangerous", "blinker"),
    *("flask_sock", "simple_websocket", "wsproto", "h11"),
)
APP = """
    import json
    from flask import Flask, request
    from flask_sock import Sock

    app = Flask(__name__)
    sock = Sock(app)
    ended = []
    app.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["b"], "max_message_size": 1000000}

    @sock.route("/echo")
    def echo(ws):
        try:
            while True:
                ws.send(ws.receive())
        finally:
            ended.append("/echo")

    @sock.route("/close")
    def close(ws):
        ws.close(4321, "enough")

    @sock.route("/fail")
    def fail(ws):
        raise ValueError("on purpose")

    @sock.route("/flood")
    def flood(ws):
        for _ in range(1000):
            ws.send(bytes(10000))

    @sock.route("/scope")
    def scope(ws):
        ws.send(json.dumps([request.scheme, request.remote_addr, request.args["q"]]))

    @app.get("/")
    def state():
        return ended

    @app.route("/plain", websocket=True)
    def plain():
        request.environ["werkzeug.socket"].send(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        return "never seen"
"""


def flask_layer(home: Path) -> str:
    """Make a layer of links to the Flask that is installed for the tests."""
    folder = home / "layers" / "flask"
    if not folder.is_dir():
        folder.mkdir(parents=True)
        site_packages = Path(sysconfig.get_path("purelib"))
        for name in PACKAGES:
            os.symlink(site_packages / name, folder / name)
    return folder.name


@asynccontextmanager
async def app(machine: Machine, **settings: Any) -> AsyncGenerator[Served]:
    spec = machine.spec(APP, layer=flask_layer(machine.home), **settings)
    async with asyncio.timeout(PATIENCE_SECONDS), served(machine, spec) as found:
        yield found


def test_a_flask_sock_route_is_served_and_ends_with_its_client(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/echo")) as client:  # compressed, by the two ends alone
                for message in ("hello", "größer", b"\0\1", "x" * 500_000):
                    await client.send(message)
                    assert await client.recv() == message

            assert (await found.recorder.next_http())[:2] == ("demo", "ok")
            assert json.loads(await found.get("/")) == ["/echo"]

    asyncio.run(main())


def test_the_request_behind_the_socket_is_an_ordinary_one(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            protocols: Any = ["a", "b"]
            async with connect(found.url("/scope?q=1"), subprotocols=protocols) as client:
                assert json.loads(await client.recv()) == ["http", "127.0.0.1", "1"]
                assert client.subprotocol == "b"

    asyncio.run(main())


def test_the_apps_own_close_arrives(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/close")) as client:
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert (client.close_code, client.close_reason) == (4321, "enough")

    asyncio.run(main())


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/plain", 500)])
def test_an_app_without_a_websocket_there_answers(
    shared_machine: Machine, path: str, status: int
) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            with pytest.raises(InvalidStatus) as refused:
                await connect(found.url(path))

            assert refused.value.response.status_code == status
            assert b"never seen" not in (refused.value.response.body or b"")

    asyncio.run(main())


def test_a_slow_client_gets_everything(shared_machine: Machine) -> None:
    async def main() -> None:
        async with app(shared_machine) as found:
            async with connect(found.url("/flood"), compression=None, max_queue=1) as client:
                for _ in range(1000):
                    assert len(await client.recv()) == 10_000
                with pytest.raises(ConnectionClosed):
                    await client.recv()

            assert client.close_code == 1000

    asyncio.run(main())


@pytest.mark.parametrize("end", ["client", "duration", "failure"])
def test_the_thread_hears_of_an_end_as_the_end_of_its_socket(
    shared_machine: Machine, end: str
) -> None:
    async def main() -> None:
        duration = 0.5 if end == "duration" else 60.0
        async with app(shared_machine, max_duration_seconds=duration) as found:
            client = await connect(found.url("/fail" if end == "failure" else "/echo"))
            if end == "client":
                client.transport.abort()
            await client.wait_closed()

            outcome = (await found.recorder.next_http())[1]
            assert outcome == {"client": "ok", "duration": "timeout", "failure": "ok"}[end]
            if end != "failure":  # Flask answers for it: what is said then is nobody's any more
                while json.loads(await found.get("/")) != ["/echo"]:
                    pass
            else:
                await shared_machine.logged("on purpose")

    asyncio.run(main())
