"""Blocking user code in threads: an invocation is not over before its thread has stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

_T = TypeVar("_T")


async def run_in_thread(executor: Executor | None, function: Callable[[], _T]) -> _T:
    """Call `function` in a thread; when cancelled, wait for the thread and then raise.

    Without an executor it is the loop's own.

    A thread cannot be stopped. If the invocation counted as over while it runs, the platform could
    send the work elsewhere and have it done twice at the same time.
    """
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(executor, _without_stop_iteration, function)
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait((work,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # seen: nobody asks for it any more
        raise cancelled
    return work.result()


def _without_stop_iteration(function: Callable[[], _T]) -> _T:
    try:
        return function()
    except StopIteration as error:  # a future cannot carry it
        raise RuntimeError("the function raised StopIteration") from error
