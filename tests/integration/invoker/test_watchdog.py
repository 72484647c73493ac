"""The watchdog of a real instance: what it sees, what it revokes, and that it can be wrong about
nothing: an invocation is either started here or sent back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from fluvial.manifest import DeploymentSpec
from fluvial.wire import FrameType
from tests.integration.invoker.conftest import InstanceLink

TOKEN = b"t" * 16
APP = """
    import asyncio, os
    kept = []
    async def app(scope, receive, send):
        path, _, argument = scope["path"][1:].partition(":")
        if path == "block":  # the loop, until somebody writes
            with open(os.environ["GATE"], "rb") as gate:
                await send({"type": "http.response.start", "status": 200, "headers": []})
                gate.read()
        if path == "fill":
            mine = bytearray(os.urandom(1024) * (int(argument) * 1024))
            await asyncio.sleep(3600)
        if path == "leak":
            kept.append(bytearray(os.urandom(1024) * (int(argument) * 1024)))
        if path == "open":
            mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(int(argument))]
            await asyncio.sleep(3600)
        if path == "threads":
            calls = [asyncio.to_thread(lambda: open(os.environ["GATE"], "rb").read())
                     for _ in range(int(argument))]
            await asyncio.gather(*calls)
        if path != "block":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO on which handlers block."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    tmp_path.chmod(0o755)
    path.chmod(0o666)
    return path


@contextlib.asynccontextmanager
async def watched(machine: Any, spec: DeploymentSpec) -> AsyncGenerator[tuple[Any, Any]]:
    """An instance with a link, and a connection of its watchdog that has spoken."""
    invoker = await machine.connect()
    handed = await invoker.acquire(spec)
    watching = await InstanceLink.dial(handed.address)
    watching.send(FrameType.WATCH, 0, TOKEN)
    link = await InstanceLink.dial(handed.address)
    assert isinstance(link, InstanceLink)
    link.hello(handed.credential, token=TOKEN)
    try:
        await health(watching, "")
        yield link, watching
    finally:
        for peer in (link, watching, invoker):
            await peer.close()


async def health(watching: Any, trouble: str) -> list[Any]:
    """Wait for a sample that says this; return its frame's header."""
    while True:
        frame = await watching.next(kind=FrameType.HEALTH)
        if frame.header[2] == trouble:
            return list(frame.header)


def test_what_a_blocked_loop_has_not_started_is_revoked(machine: Any, gate: Path) -> None:
    async def main() -> None:
        spec = machine.spec(APP, environment={"GATE": str(gate)})
        async with watched(machine, spec) as (link, watching):
            blocking = link.request("/block")
            writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY)  # returns once it blocks
            unread = [link.request("/") for _ in range(3)]
            told = await health(watching, "lag")
            link.send(FrameType.RESUME, 0, unread[-1])
            os.close(writer)
            nacks = [await link.next(number, FrameType.NACK) for number in unread]
            reply = await link.reply(blocking)
            await health(watching, "")
            after = await link.get("/")

            assert told[3] == blocking
            assert {nack.header[2] for nack in nacks} == {"lag"}
            assert (reply.body, after.body) == (b"ok", b"ok")

    asyncio.run(main())


def test_until_the_gateway_has_heard_nothing_that_it_sends_is_started(
    machine: Any, gate: Path
) -> None:
    async def main() -> None:
        spec = machine.spec(APP, environment={"GATE": str(gate)})
        async with watched(machine, spec) as (link, watching):
            blocking = link.request("/block")
            writer = await asyncio.to_thread(os.open, gate, os.O_WRONLY)
            await health(watching, "lag")
            os.close(writer)
            await link.reply(blocking)
            crossed = await link.next(link.request("/"), FrameType.NACK)
            link.send(FrameType.RESUME, 0, 2)
            await health(watching, "")
            after = await link.get("/")

            assert crossed.header[2] == "lag"
            assert after.body == b"ok"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("trouble", "path", "settings"),
    [
        ("memory", "/fill:150", {"memory_bytes": 160 * 1024 * 1024}),
        ("descriptors", "/open:950", {}),
        ("threads", "/threads:40", {}),
    ],
    ids=["memory", "descriptors", "threads"],
)
def test_trouble_refuses_company_but_not_the_only_one(
    machine: Any, gate: Path, trouble: str, path: str, settings: dict[str, Any]
) -> None:
    async def main() -> None:
        spec = machine.spec(APP, environment={"GATE": str(gate)}, **settings)
        async with watched(machine, spec) as (link, watching):
            running = link.request(path)
            await health(watching, trouble)
            refused = await link.next(link.request("/"), FrameType.NACK)
            link.send(FrameType.CANCEL, running, "test")
            writer = os.open(gate, os.O_RDWR)
            await link.reply(running)
            alone = await link.get("/")
            os.close(writer)

            assert refused.header[2] == trouble
            assert alone.body == b"ok"

    asyncio.run(main())


def test_an_instance_that_leaks_its_memory_retires(machine: Any, serve: Any) -> None:
    async def main() -> None:
        spec = machine.spec(APP, memory_bytes=160 * 1024 * 1024, idle_seconds=3600.0)
        async with serve(spec) as (_, _, link):
            await link.get("/leak:150")
            retiring = await link.next(kind=FrameType.GOAWAY)

            assert retiring.header[2] == "memory"

    asyncio.run(main())


def test_a_watchdogs_connection_without_a_link_hears_nothing(machine: Any, serve: Any) -> None:
    async def main() -> None:
        async with serve(machine.spec(APP)) as (_, handed, link):
            stranger = await InstanceLink.dial(handed.address)
            stranger.send(FrameType.WATCH, 0, b"x" * 16)
            await link.get("/")
            stranger.send(FrameType.WATCH, 0, b"y" * 16)
            await stranger.wait_closed()

            assert stranger.waiting == []

    asyncio.run(main())


def test_a_kept_instance_outlives_its_idle_time_until_its_keeper_is_gone(machine: Any) -> None:
    async def main() -> None:
        spec = machine.spec(APP, idle_seconds=0.05)
        invoker = await machine.connect()
        handed, keeper = await invoker.open(spec)
        keeper.send(FrameType.KEEP, 0, True)
        await keeper.get("/")
        other = await invoker.acquire(spec)
        link = await InstanceLink.dial(other.address)
        assert isinstance(link, InstanceLink)
        link.hello(other.credential)
        await link.get("/")
        await keeper.close()
        retiring = await link.next(kind=FrameType.GOAWAY)
        await link.close()
        await invoker.close()

        assert handed.instance == other.instance
        assert retiring.header[2] == "idle"

    asyncio.run(main())
