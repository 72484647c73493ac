"""How long it takes from ACQUIRE to the first byte of a response; printed, not asserted (`-s`)."""

from __future__ import annotations

import asyncio
import os
import statistics
import sysconfig
from pathlib import Path
from typing import Any

from fluvial.wire import FrameType

PLAIN = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello"})
"""
FASTAPI = """
    from fastapi import FastAPI
    app = FastAPI()
    @app.get("/")
    async def hello() -> dict[str, str]:
        return {"hello": "world"}
"""
FRAMEWORK = ("annotated_doc", "annotated_types", "anyio", "fastapi", "idna", "opentelemetry",
             "pydantic", "pydantic_core", "starlette", "typing_extensions.py",
             "typing_inspection")  # fmt: skip
ROUNDS = 7


def layer(home: Path, name: str, *, conflicting: bool) -> str:
    """Make a layer with FastAPI; `conflicting` keeps it from being forked."""
    folder = home / "layers" / name
    folder.mkdir(parents=True)
    for package in FRAMEWORK:
        source = Path(sysconfig.get_path("purelib")) / package
        if source.exists():
            os.symlink(source, folder / package)
    if conflicting:
        metadata = folder / "cffi-0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text("Metadata-Version: 2.1\nName: cffi\nVersion: 0\n")
    return name


async def cold_start(invoker: Any, spec: Any) -> tuple[float, str]:
    loop = asyncio.get_running_loop()
    began = loop.time()
    handed, link = await invoker.open(spec)
    number = link.request()
    frame = await link.next(number)
    seconds = loop.time() - began
    assert frame.header[0] == FrameType.RESPONSE
    assert frame.header[2] == 200
    invoker.send(FrameType.KILL, 0, handed.instance, 1000)
    await link.next(kind=FrameType.GOAWAY)
    await link.close()
    await invoker.death_of(handed.instance)
    return seconds * 1000, handed.tier


def test_cold_starts(machine: Any) -> None:
    async def main() -> None:
        invoker = await machine.connect()
        forked = layer(machine.home, "forked", conflicting=False)
        spawned = layer(machine.home, "spawned", conflicting=True)
        cases = {
            "plain": machine.spec(PLAIN),
            "plain, spawned": machine.spec(PLAIN, layer=spawned),
            "fastapi": machine.spec(FASTAPI, layer=forked),
            "fastapi, spawned": machine.spec(FASTAPI, layer=spawned),
        }
        for name, spec in cases.items():
            first, tier = await cold_start(invoker, spec)  # starts the zygote, compiles
            times = [(await cold_start(invoker, spec))[0] for _ in range(ROUNDS)]
            assert tier == ("spawn" if "spawned" in name else "zygote")
            print(  # noqa: T201 - the result
                f"{name}: {statistics.median(times):.1f} ms (min {min(times):.1f}, "
                f"max {max(times):.1f}), the very first {first:.0f} ms"
            )
        await invoker.close()

    asyncio.run(main())
