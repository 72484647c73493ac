"""The benchmark's bundle: trivial steps in sequence and in parallel, and a hello."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from fluvial import start, step, workflow


@step
async def add_one(value: int) -> int:
    return value + 1


@workflow
async def in_sequence(steps: int) -> int:
    value = 0
    for _ in range(steps):
        value = await add_one(value)
    return value


@workflow
async def in_parallel(steps: int) -> int:
    return sum(await asyncio.gather(*(add_one(i) for i in range(steps))))


_WORKFLOWS: dict[str, Any] = {"in_sequence": in_sequence, "in_parallel": in_parallel}
_Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: object, send: _Send) -> None:
    """`/` says hello; `/run?workflow=&steps=&runs=&in_flight=` plays runs and says how long."""
    if scope["type"] != "http":
        return
    body = b"Hello, World"
    if scope["path"] == "/run":
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        body = json.dumps(await play(query)).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def play(query: dict[str, str]) -> dict[str, Any]:
    """Play `runs` runs, `in_flight` at a time; return each one's seconds and the total."""
    function = _WORKFLOWS[query["workflow"]]
    steps = int(query["steps"])
    gate = asyncio.Semaphore(int(query.get("in_flight", "1")))

    async def one() -> float:
        async with gate:
            began = time.perf_counter()
            run = await start(function, steps)
            await run.result()
            return time.perf_counter() - began

    began = time.perf_counter()
    seconds = await asyncio.gather(*(one() for _ in range(int(query.get("runs", "1")))))
    return {"total": time.perf_counter() - began, "runs": seconds}
