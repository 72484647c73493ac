"""Steps with a process of their own, beside ordinary ones."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Any

from fluvial import StepFailedError, metadata, step, workflow


@step
async def neighbour(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@step(isolated=True)
async def alone() -> int:
    return os.getpid()


@step(isolated=True, retries=1, backoff=0.01)
def crashes(how: str) -> int:
    if metadata().attempt == 1 or how == "for ever":
        if how == "segfault":
            ctypes.string_at(0)
        os._exit(0)
    return metadata().attempt


@step(isolated=True)
def blocks() -> None:
    time.sleep(3600)


@workflow
async def apart() -> list[int]:
    first = await neighbour(0)
    return [first, await alone(), await alone(), await neighbour(0)]


@workflow
async def crashing(how: str) -> list[Any]:
    beside = asyncio.create_task(neighbour(3))
    try:
        outcome: Any = await crashes(how)
    except StepFailedError as error:
        outcome = [error.failure, error.attempts, type(error.__cause__).__name__]
    return [outcome, await neighbour(0) == await beside]


@workflow
async def impatient() -> str:
    try:
        async with asyncio.timeout(2):
            await blocks()
    except TimeoutError:
        return "gave up"
    return "unexpected"
