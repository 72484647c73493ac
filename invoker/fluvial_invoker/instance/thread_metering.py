"""Active CPU and output of threads: every thread works for one invocation at a time.

A thread has a clock of its own, which is handed out as the loop's is (`metering.py`): what runs in
a pool belongs to the invocation that submitted it, a thread that user code starts to the invocation
that started it, and so does what either prints. A thread's time is added when its work ends: what
it uses after its invocation has ended is counted there, and stands in no answer any more.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar, cast

from fluvial.unguarded import thread_time_ns
from fluvial_invoker.instance.metering import Meter, current

_P = ParamSpec("_P")
_T = TypeVar("_T")


class _ThreadClock(threading.local):
    """Of a thread that is not the loop's: for whom it works, and up to where that is counted."""

    meter: Meter | None = None
    ns: int = 0


_thread_clock: Final = _ThreadClock()
_waiting_for_anyio: Final[set[object]] = set()


class MeteredExecutor(ThreadPoolExecutor):
    """A thread pool whose work is billed to the invocation that submitted it."""

    @property
    def waiting(self) -> int:
        """How many calls no thread has begun."""
        return self._work_queue.qsize()

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        return super().submit(_timed, current.get(), functools.partial(fn, *args, **kwargs))


def meter_threads() -> None:
    """Meter the threads and pools that user code makes itself, from now on."""
    _meter_started_threads()
    _meter_pools()


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


def _timed(meter: Meter, work: Callable[[], _T]) -> _T:
    """Do work in a thread, on behalf of `meter`: its time and its output are that invocation's."""
    clock = _thread_clock
    outer = clock.meter
    _hand_out(clock, meter)
    token = current.set(meter)
    try:
        return work()
    finally:
        current.reset(token)
        _hand_out(clock, outer)


def _hand_out(clock: _ThreadClock, successor: Meter | None) -> None:
    """Add the time since the last reading to whoever had the thread; `successor` has it now."""
    now = thread_time_ns()
    if clock.meter is not None:
        clock.meter.add_thread_time(now - clock.ns)
    clock.meter, clock.ns = successor, now


def _meter_started_threads() -> None:
    original = threading.Thread.start
    if hasattr(original, "fluvial_metered"):
        return

    @functools.wraps(original)
    def start(thread: threading.Thread) -> None:
        # An attribute of the object: `run` may be of any class, and the thread calls what it finds.
        work = functools.partial(_run_thread, thread, current.get(), thread.run)
        cast("Any", thread).run = work
        original(thread)

    cast("Any", start).fluvial_metered = True
    cast("Any", threading.Thread).start = start


def _run_thread(thread: threading.Thread, meter: Meter, run: Callable[[], None]) -> None:
    del cast("Any", thread).run  # a cycle with the thread
    _timed(meter, run)


def _meter_pools() -> None:
    original = cast("Callable[..., Future[Any]]", ThreadPoolExecutor.submit)
    if hasattr(original, "fluvial_metered"):
        return

    @functools.wraps(original)
    def submit(
        pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        if isinstance(pool, MeteredExecutor):
            return original(pool, function, *args, **kwargs)
        work = functools.partial(function, *args, **kwargs)
        return original(pool, _timed, current.get(), work)

    cast("Any", submit).fluvial_metered = True
    cast("Any", ThreadPoolExecutor).submit = submit
