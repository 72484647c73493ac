"""An app in a jail, with a step."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from fluvial import step, workflow


@step
async def look() -> list[Any]:
    process = await asyncio.create_subprocess_exec("true")
    return [os.getpid(), await process.wait()]


@workflow
async def looking() -> list[Any]:
    return await look()


async def app(scope: dict[str, Any], _: object, send: Callable[[Any], Awaitable[None]]) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is served here")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
