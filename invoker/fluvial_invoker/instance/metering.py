"""Active CPU: how much of the processor each invocation used.

The loop's thread has one clock (CPU time of the thread) and one mark: "since the last reading".
After every step of a task the time since the mark is added to the meter of the task's invocation,
with a single system call per step. The clock stands still while the loop waits, so the meters of a
process add up to exactly the CPU time of its loop; what the loop itself spends (some microseconds
a step) falls to whoever runs next. Every task has a meter: tasks that a handler creates inherit
the invocation's through a context variable, all others share the instance's own.

Work in executor threads is measured by the clock of that thread and added under a lock.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar, cast

from fluvial.unguarded import thread_time_ns

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Meter:
    """Adds up CPU time, and knows on whose behalf output is written."""

    __slots__ = ("_thread_ns", "cpu_ns", "id", "pending_head", "run")

    def __init__(self, id: str | None = None, run: str | None = None) -> None:  # noqa: A002 - the glossary's word
        self.id = id  # the invocation's; None: the instance itself
        self.run = run
        self.cpu_ns = 0
        self._thread_ns = 0
        self.pending_head = False  # a response head waits: see `flush_head`

    @property
    def cpu_us(self) -> int:
        return (self.cpu_ns + self._thread_ns) // 1000

    def add_thread_time(self, nanoseconds: int) -> None:
        """Add what another thread used for this meter."""
        with _thread_lock:
            self._thread_ns += nanoseconds

    def flush_head(self) -> None:
        """Called when a task of the invocation suspends while `pending_head` is true."""

    def settle(self) -> None:
        """Add the time since the mark now; for work that is not a step of a task."""
        now = thread_time_ns()
        self.cpu_ns += now - _mark.ns
        _mark.ns = now


class _Mark:
    """Up to where the time of the loop's thread has been handed out."""

    __slots__ = ("ns",)
    ns: int


_mark: Final = _Mark()
_mark.ns = 0
_thread_lock: Final = threading.Lock()
instance_meter: Final = Meter()
_waiting_for_anyio: Final[set[object]] = set()
current: Final[ContextVar[Meter]] = ContextVar("fluvial_meter", default=instance_meter)


def start_metering(loop: asyncio.AbstractEventLoop) -> None:
    """Meter every task of `loop` from now on; call it in the loop's thread."""
    _mark.ns = thread_time_ns()
    loop.set_task_factory(_new_task)


def meter_of(task: object) -> Meter | None:
    """Return whose work a task is; None for what is no metered task."""
    if not isinstance(task, asyncio.Task):
        return None
    coroutine: object = cast("asyncio.Task[object]", task).get_coro()
    return coroutine.meter if isinstance(coroutine, Metered) else None


class Metered(Coroutine[Any, Any, Any]):
    """A coroutine that reads the clock after each of its steps.

    A class, not a generator: `create_task` refuses generators since Python 3.12, and a task that is
    cancelled before its first step must still throw into the user's coroutine.
    """

    __slots__ = ("_coroutine", "meter")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], meter: Meter) -> None:
        self._coroutine = coroutine
        self.meter = meter

    def send(self, value: Any, /) -> Any:
        meter = self.meter
        try:
            waited_for = self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            # asyncio would stop the loop, and with it every neighbour of this invocation.
            raise ended_by_exit(error) from error
        finally:
            now = thread_time_ns()
            meter.cpu_ns += now - _mark.ns
            _mark.ns = now
        if meter.pending_head:
            meter.flush_head()
        return waited_for

    def throw(self, *arguments: Any) -> Any:
        meter = self.meter
        try:
            waited_for = self._coroutine.throw(*arguments)
        except (SystemExit, KeyboardInterrupt) as error:
            raise ended_by_exit(error) from error
        finally:
            meter.settle()
        if meter.pending_head:
            meter.flush_head()
        return waited_for

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        # cr_frame, cr_code, __qualname__ …: what stack printers and frameworks look at.
        return getattr(self._coroutine, name)


def ended_by_exit(error: BaseException) -> RuntimeError:
    """Return what stands for a SystemExit or KeyboardInterrupt of user code."""
    return RuntimeError(f"{type(error).__name__}: an invocation cannot stop its instance")


def _new_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    metered = Metered(coroutine, current.get())
    return asyncio.Task(metered, loop=loop, **options)


class MeteredExecutor(ThreadPoolExecutor):
    """A thread pool whose work is billed to the invocation that submitted it."""

    @property
    def waiting(self) -> int:
        """How many calls no thread has begun."""
        return self._work_queue.qsize()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        return super().submit(_timed, current.get(), functools.partial(fn, *args, **kwargs))


def _timed(meter: Meter, work: Callable[[], _T]) -> _T:
    started = thread_time_ns()
    try:
        return work()
    finally:
        meter.add_thread_time(thread_time_ns() - started)


def meter_anyio_threads() -> None:
    """Bill anyio's worker threads too, where the user's code has imported anyio.

    Starlette and FastAPI run synchronous endpoints there. They look `run_sync` up in the module at
    each call, which is why replacing it in its module is enough.
    """
    module: Any = sys.modules.get("anyio.to_thread")
    if module is None or hasattr(module.run_sync, "fluvial_metered"):
        return
    original = cast("Callable[..., Awaitable[Any]]", module.run_sync)

    @functools.wraps(original)
    async def run_sync(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        ticket = object()
        work = functools.partial(_begin, ticket, functools.partial(function, *args))
        _waiting_for_anyio.add(ticket)
        try:
            return await original(functools.partial(_timed, current.get(), work), **options)
        finally:
            _waiting_for_anyio.discard(ticket)  # cancelled while it waited

    cast("Any", run_sync).fluvial_metered = True
    module.run_sync = run_sync


def _begin(ticket: object, work: Callable[[], _T]) -> _T:
    _waiting_for_anyio.discard(ticket)
    return work()


def waiting_for_anyio() -> int:
    """Return how many blocking calls no thread of anyio's has begun."""
    return len(_waiting_for_anyio)


async def widen_anyio(threads: int) -> None:
    """Let as many of anyio's threads run as the instance takes invocations.

    Its 40 would make the others wait however many there is room for. A number that the app sets
    itself, in its lifespan, comes later and stands.
    """
    module: Any = sys.modules.get("anyio.to_thread")
    if module is not None:
        limiter = module.current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, threads)
