"""`Saga`: what was done is undone, in reverse order, when the rest fails.

Invariants:

1.  Where the block fails, an action is undone if and only if it succeeded, however its caller was
    cancelled meanwhile: it runs in a task of its own, and that task notes how to undo it. If its
    caller never got the result, it is undone where the block succeeds as well.
2.  To be cancelled never cuts a compensation short. The cancel is raised when all have ended.
3.  A compensation that fails keeps none of the others from running.
4.  A coroutine that is given up (a run that is evicted) undoes nothing: its replay goes on.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from fluvial.durations import Duration, to_seconds
from fluvial.endings import outlast, stop
from fluvial.errors import InvalidRequestError
from fluvial.group_errors import CompensationFailedError
from fluvial.mapping import awaited, check_concurrency
from fluvial.mapping import map as map_all

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_GRACE: Final = "10s"  # well within the minute that a cancelled run has


@dataclass(slots=True)
class _Compensation:
    """What undoes an action."""

    undo: Callable[[], Awaitable[object]]
    is_due: bool = False  # also where the block succeeds


class Saga:
    """A block of actions that are undone when it is left by an exception or a cancel.

        async with Saga() as saga:
            flight = await saga.do(book_flight(trip), undo=cancel_flight)
            hotel = await saga.do(book_hotel(trip), undo=lambda hotel: cancel_hotel(hotel, trip))
            await charge(trip)

    Compensations run in the reverse order of the successes, one after the other. Then what ended
    the block goes on, or a CompensationFailedError if some of them failed.

    Args:
        concurrency: how many compensations run at a time; the last action's begins first.
        grace: how long actions that are under way when the block ends may take until they are
            cancelled.
    """

    def __init__(self, *, concurrency: int = 1, grace: Duration = DEFAULT_GRACE) -> None:
        check_concurrency(concurrency)
        self._concurrency = concurrency
        self._grace_seconds = to_seconds(grace, "grace")
        self._compensations: list[_Compensation] = []
        self._actions: dict[asyncio.Task[Any], None] = {}  # under way, in the order of their begin
        self._is_open = False
        self._is_used = False

    async def do(self, action: Awaitable[R], *, undo: Callable[[R], Awaitable[object]]) -> R:
        """Await `action` and return its result; from then on `undo(result)` would undo it.

        To be cancelled meanwhile (by a timeout, say) gives the action the saga's grace to finish,
        so that it is known what to undo; if it succeeds then, it is undone at the end in any case.
        An action that fails is not undone: where it may have had an effect anyway, `add` its
        compensation before it, by an id that the workflow chooses.

        Raises:
            what the action raises.
            InvalidRequestError: the block is not entered, or left already.
        """
        if not self._is_open:
            _give_up(action)
            raise _not_open()
        task = asyncio.create_task(self._perform(action, undo))
        self._actions[task] = None
        task.add_done_callback(self._actions.pop)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._settle([task])
            if not task.cancelled() and task.exception() is None:
                task.result()[1].is_due = True
            raise
        return task.result()[0]

    def add(self, undo: Callable[P, Awaitable[object]], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `undo(*args, **kwargs)` called where the block fails.

        Raises:
            InvalidRequestError: the block is not entered, or left already.
        """
        if not self._is_open:
            raise _not_open()
        self._compensations.append(_Compensation(functools.partial(undo, *args, **kwargs)))

    async def compensate(self) -> None:
        """Undo now what was done so far; it is not undone again. Works after the block as well.

        Raises:
            CompensationFailedError: some compensations failed; all have run.
        """
        await self._unwind(None)

    async def __aenter__(self) -> Self:
        if self._is_used:
            raise InvalidRequestError("a Saga is entered once; make another one")
        self._is_open = self._is_used = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_open = False
        if isinstance(error, GeneratorExit):
            return
        if error is not None:
            await self._unwind(error)
            return
        due = [each for each in self._compensations if each.is_due]
        if due:
            self._compensations = [each for each in self._compensations if not each.is_due]
            await self._undo(due, None, None)

    async def _perform(
        self, action: Awaitable[R], undo: Callable[[R], Awaitable[object]]
    ) -> tuple[R, _Compensation]:
        result = await awaited(action)
        compensation = _Compensation(functools.partial(undo, result))
        self._compensations.append(compensation)
        return result, compensation

    async def _unwind(self, original: BaseException | None) -> None:
        """Undo everything."""
        cancel = await self._settle(list(self._actions))
        everything, self._compensations = self._compensations, []
        await self._undo(everything, original, cancel)

    async def _undo(
        self,
        compensations: list[_Compensation],
        original: BaseException | None,
        cancel: asyncio.CancelledError | None,
    ) -> None:
        """Undo these, the last one first; then raise what failed, or the cancel that came."""
        undoing = asyncio.create_task(self._run(compensations[::-1]))
        cancel = await outlast([undoing]) or cancel
        failures = undoing.result()
        if failures:
            raise CompensationFailedError(original, failures)
        if cancel is not None:
            raise cancel

    async def _run(self, compensations: list[_Compensation]) -> list[Exception]:
        results = await map_all(
            lambda compensation: compensation.undo(),
            compensations,
            concurrency=self._concurrency,
            return_exceptions=True,
        )
        return [result for result in results if isinstance(result, Exception)]

    async def _settle(self, actions: list[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
        """Return when these have ended, by themselves or cancelled after the grace.

        A cancel from outside ends the grace; it is returned.
        """
        cancel: asyncio.CancelledError | None = None
        if actions:
            try:
                await asyncio.wait(actions, timeout=self._grace_seconds)
            except asyncio.CancelledError as error:
                cancel = error
        return await stop(actions) or cancel


def _not_open() -> InvalidRequestError:
    return InvalidRequestError("a Saga takes actions inside of its `async with` block only")


def _give_up(action: object) -> None:
    """Spare the user the warning that a coroutine was never awaited."""
    if inspect.iscoroutine(action):
        action.close()
