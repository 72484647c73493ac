"""`map`: one function over many items, so many at a time.

It is plain asyncio, and so durable and repeatable in a workflow: a window of tasks that is refilled
as they end, in the order of the items.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
)
from typing import Any, Final, Generic, Literal, TypeVar, cast, overload

from fluvial.endings import stop
from fluvial.errors import FluvialError, InvalidRequestError
from fluvial.group_errors import MapFailedError

T = TypeVar("T")
R = TypeVar("R")

DEFAULT_CONCURRENCY: Final = 100
MAX_CONCURRENCY: Final = 4000  # a turn may ask for 10,000 things: so many given up, and as many new
_END: Final = object()
_ROUNDING: Final = 1e-9  # 0.29 * 100 is a little less than 29


@overload
async def map(  # noqa: A001 - its name everywhere
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int = ...,
) -> list[R]: ...
@overload
async def map(  # noqa: A001 - as above
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int = ...,
    tolerate: float,
) -> list[R | BaseException]: ...
@overload
async def map(  # noqa: A001 - as above
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    concurrency: int = ...,
    return_exceptions: Literal[True],
) -> list[R | BaseException]: ...
async def map(  # noqa: A001 - as above
    function: Callable[[Any], Awaitable[Any]],
    items: Iterable[Any] | AsyncIterable[Any],
    *,
    concurrency: int = DEFAULT_CONCURRENCY,
    tolerate: float = 0,
    return_exceptions: bool = False,
) -> list[Any]:
    """Call `function` with each item; return the results in the order of the items.

    Args:
        function: a step, or any function whose result is awaited. For child runs, give it
            `functools.partial(fluvial.execute, workflow)`.
        items: what it is called with. An async iterable is asked for its next item when there is
            room for it, and closed at the end.
        concurrency: how many calls go on at a time.
        tolerate: how many failures are tolerated: a number of items, or their share as a float
            between 0 and 1. A tolerated failure stands in the results, as the exception. The share
            of an async iterable's items is judged at its end.
        return_exceptions: tolerate any number of failures.

    Raises:
        MapFailedError: more failed than is tolerated. The calls under way were cancelled and have
            ended; the error holds the failures, and the results that there are.
        InvalidRequestError: an argument is wrong.
    """
    check_concurrency(concurrency)
    tolerated = math.inf if return_exceptions else _checked_tolerance(tolerate)
    window: _Window[Any, Any] = _Window(function, concurrency, tolerated)
    if isinstance(items, AsyncIterable):
        return await window.run(aiter(items))
    known = list(items)
    return await window.run(iter(known), len(known))


_Items = Iterator[T] | AsyncIterator[T]


class _Window(Generic[T, R]):
    """One `map` while it goes on.

    Not a task group: one that stops anyway overlooks a cancel from outside, and how it counts its
    own differs from one version of Python to the next.
    """

    def __init__(
        self, function: Callable[[T], Awaitable[R]], concurrency: int, tolerated: float
    ) -> None:
        self._function = function
        self._concurrency = concurrency
        self._tolerated = tolerated
        self._total: int | None = None
        self._count = 0
        self._calls: dict[asyncio.Task[R], int] = {}  # under way, in the order of their begin
        self._results: dict[int, R] = {}
        self._failures: dict[int, Exception] = {}
        self._exit: BaseException | None = None  # a SystemExit or the like, of a call
        self._is_stopping = False
        self._change: asyncio.Future[None] | None = None

    async def run(self, items: _Items[T], total: int | None = None) -> list[R | Exception]:
        self._total = total
        error: BaseException | None = None
        try:
            await self._fill(items)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - raised again below
            error = raised
        self._is_stopping = True
        error = await stop(list(self._calls)) or error or self._exit
        if inspect.isasyncgen(items):
            await items.aclose()
        if error is not None:
            raise error
        if self._total is None:
            self._total = self._count
        if self._is_failed():
            raise MapFailedError(self._failures, self._results, total=self._total)
        return [
            self._failures[index] if index in self._failures else self._results[index]
            for index in range(self._count)
        ]

    async def _fill(self, items: _Items[T]) -> None:
        """Keep the window full; return when all calls have ended, or too many have failed."""
        is_exhausted = False
        while not self._is_failed():
            if not is_exhausted and len(self._calls) < self._concurrency:
                item = await self._next_item(items)
                is_exhausted = item is _END
                if not is_exhausted:
                    self._begin(item)
            elif self._calls:
                await self._next_change()
            else:
                return

    async def _next_item(self, items: _Items[T]) -> Any:
        """Return the next item; _END after the last, and where too many fail meanwhile."""
        if isinstance(items, Iterator):
            return next(items, _END)
        asking = asyncio.create_task(_ask(items))
        asking.add_done_callback(self._wake)
        try:
            while not asking.done() and not self._is_failed():
                await self._next_change()
        except asyncio.CancelledError:
            await stop([asking])
            raise
        if self._is_failed():
            cancel = await stop([asking])
            if cancel is not None:
                raise cancel
            return _END
        return asking.result()

    def _begin(self, item: T) -> None:
        call = asyncio.create_task(self._call(item))
        self._calls[call] = self._count
        self._count += 1
        call.add_done_callback(self._end)

    async def _call(self, item: T) -> R:
        return await awaited(self._function(item))

    def _end(self, call: asyncio.Task[R]) -> None:
        index = self._calls.pop(call)
        if call.cancelled():
            if not self._is_stopping:
                self._failures[index] = FluvialError(
                    f"the call for item {index} was cancelled by its own code"
                )
        elif (error := call.exception()) is None:
            self._results[index] = call.result()
        elif isinstance(error, Exception):
            self._failures[index] = error
        else:
            self._exit = error
        self._wake()

    def _wake(self, _: object = None) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _next_change(self) -> None:
        """Return when a call has ended, or the next item is there."""
        self._change = asyncio.get_running_loop().create_future()
        await self._change

    def _is_failed(self) -> bool:
        allowed = self._tolerated
        if 0 < allowed < 1:
            allowed = math.inf if self._total is None else allowed * self._total + _ROUNDING
        return len(self._failures) > allowed or self._exit is not None


async def awaited(call: Awaitable[R]) -> R:
    """Await a call; outside of workflows, that of a step that is a plain function has returned."""
    given: object = call
    return await call if inspect.isawaitable(given) else cast("R", given)


async def _ask(items: AsyncIterator[Any]) -> Any:
    try:
        return await anext(items)
    except StopAsyncIteration:
        return _END


def check_concurrency(concurrency: int) -> None:
    if type(concurrency) is not int or not 1 <= concurrency <= MAX_CONCURRENCY:
        raise InvalidRequestError(
            f"concurrency must be a number from 1 to {MAX_CONCURRENCY}, got {concurrency!r}"
        )


def _checked_tolerance(tolerate: float) -> float:
    is_count = type(tolerate) is int and tolerate >= 0
    is_share = type(tolerate) is float and 0 < tolerate < 1
    if not (is_count or is_share):
        raise InvalidRequestError(
            "tolerate must be a number of items, or their share as a float between 0 and 1, got"
            f" {tolerate!r}; for any number of failures use return_exceptions=True"
        )
    return tolerate
