"""Waiting for tasks to end, whatever happens to the one that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any


async def outlast(tasks: Collection[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
    """Return when all these tasks have ended; if this one was cancelled meanwhile, with that.

    The caller raises the cancel when it has done what cannot be left half done. Errors of the
    tasks count as seen: whoever waits for them may not be there any more.
    """
    cancel: asyncio.CancelledError | None = None
    while any(not task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancel = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    return cancel


async def stop(tasks: Collection[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
    """Cancel these tasks, and do as `outlast`."""
    for task in tasks:
        task.cancel()
    return await outlast(tasks)
