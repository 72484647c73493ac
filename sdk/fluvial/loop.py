"""The event loop on which workflow code runs: plain asyncio, but repeatable.

Invariants:

1.  It is driven by hand, from inside another loop's callback or from none, and returns when every
    task waits. The outer loop and its current task are put aside meanwhile.
2.  Callbacks run in the order in which they were scheduled; nothing else decides the order.
3.  Its clock moves only with consumed inputs. A timer is a durable operation: it fires when the
    log says so, not when a clock does.
4.  Tasks and futures hash by their number, not by their address: asyncio keeps them in sets, and
    the order of a set decides what a task group cancels first.
5.  What cannot be repeated (sockets, threads, processes, signals) raises WorkflowSandboxError.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from asyncio import futures
from asyncio.events import (
    _get_running_loop,  # pyright: ignore[reportPrivateUsage] - in asyncio's __all__
    _set_running_loop,  # pyright: ignore[reportPrivateUsage] - in asyncio's __all__
)
from asyncio.tasks import (  # in asyncio's __all__, for loops like this one
    _enter_task,  # pyright: ignore[reportPrivateUsage]
    _leave_task,  # pyright: ignore[reportPrivateUsage]
)
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from fluvial.durations import MAX_SECONDS
from fluvial.errors import InvalidRequestError, WorkflowSandboxError
from fluvial.events import EventType
from fluvial.journal import Journal, Operation
from fluvial.sandbox import refusal
from fluvial.scope import RunScope

T = TypeVar("T")

ErrorHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]
_EAGER_TASK_FACTORY: Final[Any] = getattr(asyncio, "eager_task_factory", None)  # from 3.12 on

MAX_CALLBACKS: Final = 1_000_000  # between two idle moments; more is a loop that never waits
MAX_CLOCK_READS: Final = 1_000_000  # between two idle moments; more waits for a clock that stands
# What asyncio.sleep leaves to its timer: so a sleep is told from a timeout, which nobody wakes.
_WAKE_SLEEPER: Final[Any] = vars(futures)["_set_result_unless_cancelled"]
_DISCARD_ROUNDS: Final = 100  # waits in `finally` blocks that a discarded coroutine may have
_ROUNDING_MS: Final = 0.001  # a float of Unix seconds is exact to about 0.0002 ms

logger = logging.getLogger(__name__)


def new_loop(journal: Journal, scope: RunScope) -> WorkflowLoop:
    """Return a loop for one run."""
    # To a type checker the class is abstract: what it refuses is filled in below its body.
    make = cast("Callable[[Journal, RunScope], WorkflowLoop]", WorkflowLoop)
    return make(journal, scope)


def current_loop() -> WorkflowLoop | None:
    """Return the workflow's loop if workflow code is running in this thread."""
    loop = _get_running_loop()
    return loop if type(loop) is WorkflowLoop else None


class Discarded(BaseException):
    """Thrown into a suspended coroutine that will not go on here; ends it, `finally` by `finally`.

    Not GeneratorExit: an async generator that is waited for does not hear of that (before Python
    3.13), and would complain when it is collected.
    """


# With what else a discarded coroutine may end.
_ENDS: Final = (Exception, GeneratorExit, asyncio.CancelledError, SystemExit)


class TimerOperation(Operation):
    """A durable timer."""

    __slots__ = ("delay_ms", "is_sleep", "timer")
    opens = EventType.TIMER_SET
    closes = EventType.TIMER_CANCELLED

    def __init__(self, timer: DurableTimer, delay_ms: int, *, is_sleep: bool) -> None:
        super().__init__()
        self.timer = timer
        self.delay_ms = delay_ms
        self.is_sleep = is_sleep

    def opening_meta(self) -> dict[str, Any]:
        if self.is_sleep:
            return {"delay_ms": self.delay_ms, "sleep": True}
        return {"delay_ms": self.delay_ms}


class ReadyCallback(asyncio.Handle):
    """A scheduled callback; `asyncio.Handle` without the parts that debugging needs."""

    __slots__ = ()

    def __init__(  # the base's __init__ does more than a hand-driven loop needs
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: WorkflowLoop,
        context: Context | None,
    ) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None

    def run(self) -> None:
        if not self._cancelled:
            self._context.run(self._callback, *self._args)


class DurableTimer(asyncio.TimerHandle):
    """What `call_at` returns."""

    __slots__ = ("operation",)
    if TYPE_CHECKING:  # asyncio.Handle has them; the stubs do not say so
        _context: Context
        _callback: Callable[..., object]

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: WorkflowLoop,
        context: Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.operation: TimerOperation | None = None

    def run(self) -> None:
        if not self._cancelled:
            self._context.run(self._callback, *self._args)


class NumberedFuture(asyncio.Future[Any]):
    """A future that goes into sets in a repeatable order."""

    __slots__ = ("_number",)

    def __init__(self, number: int, loop: WorkflowLoop) -> None:
        self._number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number


class NumberedTask(asyncio.Task[Any]):
    """A task that goes into sets in a repeatable order."""

    __slots__ = ("_number",)

    def __init__(self, number: int, coroutine: Any, **options: Any) -> None:
        self._number = number  # first: asyncio puts the new task into a set of its own
        super().__init__(coroutine, **options)
        # To be dropped while it waits is an ordinary end here.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._number


class WorkflowLoop(asyncio.AbstractEventLoop):
    """One run's event loop."""

    def __init__(self, journal: Journal, scope: RunScope) -> None:
        self.journal = journal
        self.scope = scope
        self.invocation: Any = None  # of `fluvial.context`, set for every turn
        self._ready: deque[ReadyCallback | DurableTimer] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64
        self._count = 0
        self._task_count = 0
        self._seconds = 0.0
        self._clock_reads = 0
        self._is_eager = False
        self._on_error: ErrorHandler | None = None
        self._is_halted = False

    # Driving

    def advance(self, seconds: float) -> None:
        """Move the clock forward; it never goes back."""
        if seconds > self._seconds:  # hot: cheaper than max()
            self._seconds = seconds

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to run before the next input."""
        return not self._ready

    def fire(self, operation: TimerOperation, *, early: bool = False) -> None:
        """Let a timer's callback run; unless it is `early`, the clock is then at least at its
        time."""
        if not early:
            self.advance(operation.timer.when())
        self._ready.append(operation.timer)

    def halt(self, _task: object = None) -> None:
        """Stop driving after the current callback: the workflow has returned."""
        self._is_halted = True

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """Make this the running loop of the thread; the one that runs, if any, is put aside."""
        outer = _get_running_loop()
        outer_task = None if outer is None else asyncio.current_task(outer)
        if outer is not None and outer_task is not None:
            _leave_task(outer, outer_task)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, self._close_generator)
        _set_running_loop(self)
        try:
            yield
        finally:
            _set_running_loop(outer)
            sys.set_asyncgen_hooks(*hooks)
            if outer is not None and outer_task is not None:
                _enter_task(outer, outer_task)

    def run_until_idle(self) -> None:
        """Run callbacks until none is ready, or until halted. Call it inside `running`.

        Raises:
            WorkflowSandboxError: the workflow never waits.
        """
        ready = self._ready
        budget = MAX_CALLBACKS
        self._clock_reads = 0
        while ready and not self._is_halted:
            handle = ready.popleft()
            try:
                handle.run()
            except SystemExit:
                continue  # asyncio has stored it as the task's exception already
            except Exception as error:  # noqa: BLE001 - user code; as asyncio's loops do
                self.call_exception_handler({"message": "error in a callback", "exception": error})
            budget -= 1
            if budget == 0:
                raise WorkflowSandboxError(
                    f"the workflow ran {MAX_CALLBACKS} callbacks without waiting for anything:"
                    " it loops; wait for a step, a hook or a sleep"
                )

    def discard(self) -> None:
        """Close every suspended coroutine. User code in `finally` blocks runs, and may ask nothing.

        The journal must be closed before.
        """
        with self.running():
            for task in self._tasks:
                self._discard_task(task)
        self._tasks.clear()
        self._ready.clear()

    def _discard_task(self, task: asyncio.Task[Any]) -> None:
        if task.done():
            return
        # None where a task began eagerly and ended (3.12).
        coroutine = cast("Coroutine[Any, Any, Any] | None", task.get_coro())
        if coroutine is None:
            return
        for _ in range(_DISCARD_ROUNDS):  # a `finally` block may wait for something: on to the next
            try:
                coroutine.throw(Discarded())
            except Discarded:
                return
            except _ENDS as error:
                logger.debug("a discarded coroutine raised", exc_info=error)
                return
            except BaseExceptionGroup as group:  # a task group that was being left has wrapped it
                if group.split((Discarded, *_ENDS))[1] is not None:
                    raise
                return

    # asyncio: time and callbacks

    def time(self) -> float:
        """The time of the last input, in Unix seconds.

        Raises:
            WorkflowSandboxError: the workflow waits for the time to pass without awaiting anything.
        """
        self._clock_reads += 1
        if self._clock_reads > MAX_CLOCK_READS:
            raise refusal(
                "a clock to wait by: it stands still while workflow code runs",
                "await asyncio.sleep or fluvial.sleep",
            )
        return self._seconds

    def call_soon(  # type: ignore[override] # the stub's TypeVarTuple adds nothing here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> ReadyCallback:
        handle = ReadyCallback(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override] # as call_soon
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._seconds + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override] # as call_soon
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        delay = when - self._seconds
        timer = DurableTimer(when, callback, args, self, context)
        if delay == math.inf:
            return timer  # it never fires, so nothing durable is needed
        if not delay <= MAX_SECONDS:  # also true for NaN
            raise InvalidRequestError(f"a delay of {delay} seconds is above a hundred years")
        delay_ms = math.ceil(max(delay, 0.0) * 1000 - _ROUNDING_MS)
        if delay_ms <= 0:
            self._ready.append(timer)
        else:
            timer.operation = TimerOperation(timer, delay_ms, is_sleep=callback is _WAKE_SLEEPER)
            self.journal.ask(timer.operation)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        operation = cast("DurableTimer", handle).operation
        if operation is not None:
            self.journal.withdraw(operation)

    # asyncio: futures and tasks

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(self.next_number(), self)

    def next_number(self) -> int:
        """Return the number by which the next future is to be hashed."""
        self._count += 1
        return self._count

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        self._task_count += 1
        # Named here: asyncio would count the tasks of all runs together.
        task_name = name if name is not None else f"task-{self._task_count}"
        if self._is_eager:
            kwargs.setdefault("eager_start", True)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [task for task in self._tasks if not task.done()]
            self._prune_at = 2 * len(self._tasks) + 64
        task = NumberedTask(self._task_count, coro, loop=self, name=task_name, **kwargs)
        self._tasks.append(task)
        return cast("asyncio.Task[T]", task)

    def unfinished_tasks(self) -> set[asyncio.Task[Any]]:
        """Return what `asyncio.all_tasks()` does; in an order that repeats."""
        return {task for task in self._tasks if not task.done()}

    def set_task_factory(self, factory: Any) -> None:
        """Choose how tasks are made: as ever (None), or eagerly (Python 3.12 and later).

        Raises:
            WorkflowSandboxError: another factory, whose tasks would have no repeatable order.
        """
        if factory is not None and factory is not _EAGER_TASK_FACTORY:
            raise refusal("a task factory of its own", "use asyncio.eager_task_factory or none")
        self._is_eager = factory is not None

    def get_task_factory(self) -> Any:
        return _EAGER_TASK_FACTORY if self._is_eager else None

    def set_exception_handler(self, handler: ErrorHandler | None) -> None:
        self._on_error = handler

    def get_exception_handler(self) -> ErrorHandler | None:
        return self._on_error

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.journal.is_closed:
            return
        if self._on_error is None:
            self.default_exception_handler(context)
            return
        try:
            self._on_error(self, context)
        except Exception as error:
            logger.error(
                "error in the exception handler of run %s", self.scope.run_id, exc_info=error
            )

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        message = context.get("message", "error in workflow code")
        logger.error("%s in run %s", message, self.scope.run_id, exc_info=context.get("exception"))

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Without effect: asyncio's debugging measures real time."""

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return self.journal.is_closed

    def _close_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An async generator was dropped half way. When that happens is up to the garbage
        collector, so its clean-up may run, but not wait or ask for anything."""
        was_closed, self.journal.is_closed = self.journal.is_closed, True
        try:
            with self.running():
                generator.aclose().send(None)
        except (StopIteration, StopAsyncIteration):
            return
        except Exception as error:
            logger.debug("a dropped async generator raised", exc_info=error)
        finally:
            self.journal.is_closed = was_closed


def _forbidden(name: str) -> Callable[..., Any]:
    def refuse(*_: object, **__: object) -> Any:
        raise refusal(f"loop.{name}")

    refuse.__name__ = name
    return refuse


for _name in dir(asyncio.AbstractEventLoop):
    if not _name.startswith("_") and _name not in vars(WorkflowLoop):
        setattr(WorkflowLoop, _name, _forbidden(_name))
