"""Active CPU: how much of the processor each invocation used.

The loop's thread has one clock (CPU time of the thread) and one mark: "since the last reading".
After every step of a task the time since the mark is added to the meter of the task's invocation,
with a single system call per step. The clock stands still while the loop waits, so the meters of a
process add up to exactly the CPU time of its loop; what the loop itself spends (some microseconds
a step) falls to whoever runs next. Every task has a meter: tasks that a handler creates inherit
the invocation's through a context variable, all others share the instance's own.

What runs in other threads is metered by their own clocks: see `thread_metering.py`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Generator
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar, cast

from fluvial.unguarded import thread_time_ns

Subject = tuple[str | None, str | None, int | None, int | None]
"""What an invocation executes: kind, function, step and attempt."""

_NOTHING: Final[Subject] = (None, None, None, None)
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

    def is_stopped(self) -> bool:
        """Whether what runs here was told to stop; also called in other threads."""
        return False

    def flush_head(self) -> None:
        """Called when a task of the invocation suspends while `pending_head` is true."""

    def subject(self) -> Subject:
        """What is executed: kind, function, step and attempt; None: nothing of that sort."""
        return _NOTHING

    def settle(self) -> None:
        """Add the time since the mark now; for work that is not a step of a task."""
        now = thread_time_ns()
        self.cpu_ns += now - _mark.ns
        _mark.ns = now


class TurnMeter(Meter):
    """Of a turn, which is no task and has no id of its own."""

    __slots__ = ("_workflow",)

    def __init__(self, run: str, workflow: str) -> None:
        super().__init__(None, run)
        self._workflow = workflow

    def subject(self) -> Subject:
        return "turn", self._workflow, None, None


class _Mark:
    """Up to where the time of the loop's thread has been handed out."""

    __slots__ = ("ns",)
    ns: int


_mark: Final = _Mark()
_mark.ns = 0
_thread_lock: Final = threading.Lock()
instance_meter: Final = Meter()
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
