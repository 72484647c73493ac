from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from fluvial import wire
from fluvial.manifest import InstanceSettings, Manifest
from fluvial.wire import FrameType
from fluvial_gateway.builder_client import (
    MAX_LOG_CHARACTERS,
    BuilderClient,
    BuildReport,
    BuildRequest,
)
from fluvial_gateway.problems import ProblemError

REQUEST = BuildRequest(archive=Path("/a"), digest="d", name="shop", variables=("TOKEN",))
REPORT = {
    "manifest": Manifest(name="shop", workflows=("main",), retention_seconds=1.5).to_dict(),
    "bundle": "d",
    "layer": "l",
    "functions": {
        "entrypoint": "main:app",
        "interface": "asgi",
        "workflows": ["fulfil"],
        "steps": [],
    },
}
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _build(tmp_path: Path, *answers: Answer, build_seconds: float = 5.0) -> list[str | BuildReport]:
    """Build against a builder that treats its connections as `answers` say, in turn."""
    left = list(answers)

    async def main() -> list[str | BuildReport]:
        conversations: set[asyncio.Task[None] | None] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            conversations.add(asyncio.current_task())
            await left.pop(0)(reader, writer)
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

        path = tmp_path / "b"
        server = await asyncio.start_unix_server(serve, str(path))
        try:
            client = BuilderClient(path, build_seconds=build_seconds)
            return [item async for item in client.build(REQUEST)]
        finally:
            server.close()
            await asyncio.gather(*filter(None, conversations), return_exceptions=True)

    return asyncio.run(main())


def _sends(*frames: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"".join(frames))
        await writer.drain()

    return answer


async def _hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


def test_build_yields_its_log_then_the_report(tmp_path: Path) -> None:
    asked: list[Any] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.extend(wire.FrameReader().feed(await reader.read(65536)))
        writer.write(wire.pack(FrameType.BUILD_LOG, 1, "one\x1b[2J"))
        writer.write(wire.pack(FrameType.BUILT, 1, REPORT))

    log, report = _build(tmp_path, answer)

    assert log == "one[2J"  # nothing in a log can steer a terminal
    assert isinstance(report, BuildReport)
    assert (report.app, report.layer, report.modules) == ("shop", "l", ("main",))
    assert report.instance == InstanceSettings()
    assert report.retention_ms == 1500
    assert report.functions.workflows == ("fulfil",)
    ((header, _),) = asked
    assert header[0] == FrameType.BUILD
    asked_for = {"archive": "/a", "digest": "d", "name": "shop", "variables": ["TOKEN"]}
    assert header[2] == asked_for


def test_builder_that_idled_out_is_dialled_again(tmp_path: Path) -> None:
    items = _build(tmp_path, _hangs_up, _sends(wire.pack(FrameType.BUILT, 1, REPORT)))

    assert isinstance(items[-1], BuildReport)


def _code(tmp_path: Path, *answers: Answer, build_seconds: float = 5.0) -> str:
    with pytest.raises(ProblemError) as refusal:
        _build(tmp_path, *answers, build_seconds=build_seconds)
    return refusal.value.problem_code


def test_refusal_keeps_its_code(tmp_path: Path) -> None:
    refused = wire.pack(FrameType.REFUSED, 1, "import_failed", "No module named 'x'")

    assert _code(tmp_path, _sends(refused)) == "import_failed"


def test_refusal_with_an_unknown_code_is_a_failed_build(tmp_path: Path) -> None:
    assert _code(tmp_path, _sends(wire.pack(FrameType.REFUSED, 1, "?", ""))) == "build_failed"


@pytest.mark.parametrize(
    "frames",
    [
        [wire.pack(FrameType.BUILD_LOG, 1, "half")],  # and then it dies
        [b"\xff" * 8],
        [wire.pack(FrameType.BUILT, 1)],
        [wire.pack(FrameType.BUILT, 1, {"manifest": {}})],
        [wire.pack(FrameType.BUILD_LOG, 1, "x" * 200_000)] * (MAX_LOG_CHARACTERS // 200_000 + 1),
    ],
)
def test_builder_that_breaks_off_is_unavailable(tmp_path: Path, frames: list[bytes]) -> None:
    assert _code(tmp_path, _sends(*frames)) == "builder_unavailable"


def test_no_builder_is_unavailable(tmp_path: Path) -> None:
    async def main() -> None:
        async for _ in BuilderClient(tmp_path / "none").build(REQUEST):
            raise AssertionError

    with pytest.raises(ProblemError, match="cannot be reached"):
        asyncio.run(main())


def test_build_has_a_deadline(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass

    assert _code(tmp_path, silent, build_seconds=0.05) == "build_failed"
