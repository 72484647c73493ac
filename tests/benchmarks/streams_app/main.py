"""The bundle of `bench_streams.py`: steps that write chunks, and readers that time them."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from fluvial import Run, start, step, stream, workflow

_Send = Callable[[dict[str, Any]], Awaitable[None]]


@step
async def write(chunks: int, size: int, pause_ms: float) -> None:
    out = stream("out")
    filling = os.urandom(size)  # nothing that compresses
    for _ in range(chunks):
        if pause_ms:
            await asyncio.sleep(pause_ms / 1000)
        await out.write((time.monotonic_ns(), filling))


@workflow
async def writing(chunks: int, size: int, pause_ms: float) -> None:
    await write(chunks, size, pause_ms)


async def app(scope: dict[str, Any], receive: object, send: _Send) -> None:
    """`/play?chunks=&size=&pause_ms=&readers=` plays a run; answers what its readers measured."""
    if scope["type"] != "http":
        return
    query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
    body = json.dumps(await play(query)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def play(query: dict[str, str]) -> dict[str, Any]:
    """Return the seconds from the first write to the last read, and the ways of all chunks."""
    run = await start(
        writing, int(query["chunks"]), int(query["size"]), float(query.get("pause_ms", "0"))
    )
    readers = int(query.get("readers", "1"))
    read = await asyncio.gather(*(_read(run) for _ in range(readers)))
    written = min(first for first, _, _ in read)
    return {
        "seconds": (max(last for _, last, _ in read) - written) / 1e9,
        "latencies_ms": [way / 1e6 for _, _, ways in read for way in ways],
    }


async def _read(run: Run[Any]) -> tuple[int, int, list[int]]:
    first, now, ways = 0, 0, list[int]()
    async for written, _ in run.stream("out"):
        now = time.monotonic_ns()
        first = first or written
        ways.append(now - written)
    return first, now, ways
