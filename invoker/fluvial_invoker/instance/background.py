"""Work that an invocation has left for after its response (`fluvial.wait_until`)."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from typing import Any

from fluvial_invoker.instance.metering import Meter
from fluvial_invoker.instance.output import report, report_exception
from fluvial_invoker.instance.threads import run_in_thread

Work = Awaitable[Any] | Callable[[], Any]


class BackgroundWork:
    """The work of one invocation, which it has to wait for."""

    def __init__(self, meter: Meter, loop: asyncio.AbstractEventLoop) -> None:
        self._meter = meter
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cancelled = False

    def add(self, work: Work) -> None:
        """Begin; in the context that is current here. It may be called in any thread."""
        context = contextvars.copy_context()
        try:
            is_here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_here = False
        if is_here:
            self._begin(work, context)
        else:
            # The thread ends after this call, and its end comes to the loop after this callback.
            self._loop.call_soon_threadsafe(self._begin, work, context, context=context)

    async def drain(self) -> None:
        """Wait until all work has ended, also what was added meanwhile; when cancelled, end it."""
        while self._tasks:
            try:
                await asyncio.wait(self._tasks)
            except asyncio.CancelledError:
                self.cancel()

    def cancel(self) -> None:
        """The invocation has to end."""
        self._is_cancelled = True
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Work, context: contextvars.Context) -> None:
        task = self._loop.create_task(self._run(work, context), context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_cancelled:
            task.cancel()

    async def _run(self, work: Work, context: contextvars.Context) -> None:
        try:
            if isinstance(work, Awaitable):
                await work
            else:
                inside = context.copy()
                await run_in_thread(None, lambda: inside.run(work))
        except asyncio.CancelledError:
            report("work of wait_until() was cancelled: its invocation has to end", self._meter)
        except Exception as error:  # noqa: BLE001 - the boundary of work that nobody waits for
            report_exception(error, self._meter, "work of wait_until() failed")
