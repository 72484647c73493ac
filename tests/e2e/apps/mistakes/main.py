"""What users get wrong in workflows and steps, beside what they get right."""

from __future__ import annotations

import asyncio
from typing import Any

from fluvial import FluvialError, Hook, start, step, workflow


@step
async def add(first: int, second: int) -> int:
    return first + second


@step
async def linger(reached: int, seconds: float) -> int:
    await asyncio.sleep(seconds)
    return reached + 1


@step
async def open_handles() -> dict[str, list[object]]:
    """Return what has no encoding."""
    return {"handles": [1, object()]}


@step
async def take(handles: dict[str, object]) -> None:
    """Is never executed: what it is given has no encoding."""


@workflow
async def total(first: int, *, second: int = 1) -> int:
    return await add(first, second)


@workflow
async def slow(steps: int, seconds: float) -> int:
    reached = 0
    while reached < steps:
        reached = await linger(reached, seconds)
    return reached


@workflow
async def waiting(token: str) -> int:
    """Wait for a number and go on with it."""
    async with Hook(int, token=token) as hook:
        return await add(await hook, 1)


@workflow
async def failing() -> None:
    raise ValueError("on purpose")


@workflow
async def returned_by_step() -> None:
    await open_handles()


@workflow
async def passed_to_step() -> None:
    await take({"handle": object()})


@workflow
async def returned_by_workflow() -> object:
    return [await add(1, 2), object()]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with the body's size; /start starts a run, /wrong one with what has no encoding."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    wanted: dict[str, Any] = {"/start": 1, "/wrong": object()}
    path = scope["path"]
    text = await _started(wanted[path]) if path in wanted else f"{size} bytes"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


async def _started(first: int) -> str:
    try:
        run = await start(total, first)
    except FluvialError as error:
        return f"{error.code} {error}"
    return run.id
