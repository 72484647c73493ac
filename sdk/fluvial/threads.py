"""Where the bodies of sync steps run: a bounded pool of threads, made when first needed."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

DEFAULT_THREADS: Final = 32


class Threads(Protocol):
    """Runs a function off the event loop. An instance passes its own, which meters CPU."""

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread, in a copy of the caller's context."""
        ...


class StepThreads:
    """The plain implementation of `Threads`."""

    def __init__(self, limit: int = DEFAULT_THREADS) -> None:
        self._limit = limit
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread, in a copy of the caller's context."""
        if self._pool is None:  # late: a zygote with threads could not be forked
            self._pool = ThreadPoolExecutor(self._limit, thread_name_prefix="fluvial-step")
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        result: T = await loop.run_in_executor(self._pool, context.run, function)
        return result

    def close(self) -> None:
        """Take no further work; work that runs is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
