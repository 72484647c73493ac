"""A plain asyncio loop in virtual time: the model of what a workflow's loop should do.

It is CPython's own loop but for three things. Its clock jumps to the next timer when nothing is
ready. Timers fire one at a time, those of one millisecond in the order of asking, and everything
ready runs in between: as a run consumes its events. Tasks hash by number, so that sets of them
have one order.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Any

from fluvial.errors import StepFailedError
from tests.unit.fluvial.programs import Program, World, execute

RETRY_SECONDS = 1.0
FLAKY_ATTEMPTS = 2  # as many as the step of that name needs


class _Task(asyncio.Task[Any]):
    def __init__(self, number: int, coroutine: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above; `start_ms` is where its clock stands at first."""

    def __init__(self, start_ms: int, *, eager: bool) -> None:
        super().__init__()
        self.tasks: list[asyncio.Task[Any]] = []
        self.is_over = False
        self._now_ms = start_ms
        self._order = itertools.count()
        self._numbers = itertools.count(1)
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._options: dict[str, Any] = {"eager_start": True} if eager else {}
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_ms / 1000

    def call_at(  # type: ignore[override] # the stub's TypeVarTuple adds nothing here
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (round(when * 1000), next(self._order), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It stays in the heap, and is passed over."""

    def _run_once(self) -> None:
        ready: Any = vars(self)["_ready"]
        if ready:
            handle = ready.popleft()
        else:
            at_ms, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._now_ms = max(self._now_ms, at_ms)
        if not handle.cancelled():
            handle._run()

    def _make_task(self, _: object, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        # Counted before: a task that starts eagerly makes others while it is made.
        number = next(self._numbers)
        task = _Task(number, coroutine, loop=self, **options, **self._options)
        self.tasks.append(task)
        return task

    def call_exception_handler(self, context: Any) -> None:
        """Errors of tasks that nobody awaits are no news."""

    def end(self) -> None:
        """Cancel what is left, and let it clean up unseen."""
        self.is_over = True
        left = [task for task in self.tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.wait(left))
        self.close()


Trace = list[tuple[int, str]]


def predict(
    program: Program,
    durations: dict[str, int],
    cancels: list[int],
    *,
    start_ms: int,
    eager: bool,
) -> tuple[str, Trace]:
    """Return how a program ends and its trace, if its steps take `durations` milliseconds."""
    loop = VirtualLoop(start_ms, eager=eager)
    trace: Trace = []

    def note(what: str) -> None:
        if not loop.is_over:
            trace.append((round(loop.time() * 1000) - start_ms, what))

    async def call(name: str, value: int) -> int:
        future: asyncio.Future[int] = asyncio.Future(loop=loop)

        def end(attempt: int) -> None:
            if name == "flaky" and attempt < FLAKY_ATTEMPTS:
                loop.call_later(RETRY_SECONDS, end, attempt + 1)
            elif future.done():
                return
            elif name == "broken":
                future.set_exception(StepFailedError(name, attempt, "ValueError"))
            else:
                future.set_result(value)

        loop.call_later(durations[name] / 1000, end, 1)
        return await future

    async def main() -> str:
        return await execute(program, World(call, note))

    try:
        task = loop.create_task(main())
        for at_ms in cancels:
            loop.call_at((start_ms + at_ms) / 1000, task.cancel)
        try:
            ending = loop.run_until_complete(task)
        except asyncio.CancelledError:
            ending = "cancelled"
    finally:
        loop.end()
    return ending, trace
