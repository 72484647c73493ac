"""`@step`: a unit of work inside a run: executed at least once, recorded exactly once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from fluvial.durations import Duration
from fluvial.errors import InvalidRequestError
from fluvial.events import EventType
from fluvial.journal import Operation
from fluvial.loop import WorkflowLoop, current_loop
from fluvial.registry import registry
from fluvial.signatures import Signature, encode_call
from fluvial.step_settings import (
    DEFAULT_RETRIES,
    Backoff,
    RetryOn,
    StepSettings,
    checked_settings,
)

P = ParamSpec("P")
R = TypeVar("R")


class StepOperation(Operation):
    """A call of a step by a workflow."""

    __slots__ = ("_plaintext", "future", "step")
    opens = EventType.STEP_SCHEDULED
    closes = EventType.STEP_CANCELLED

    def __init__(self, step: Step[Any, Any], plaintext: bytes) -> None:
        super().__init__()
        self.step = step
        self.future: asyncio.Future[Any] | None = None
        self._plaintext = plaintext

    def opening_meta(self) -> dict[str, Any]:
        return {"name": self.step.name, "timeout_ms": self.step.timeout_ms}

    def take_plaintext(self) -> tuple[Literal["step_input"], bytes]:
        plaintext, self._plaintext = self._plaintext, b""
        return "step_input", plaintext


class Step(Generic[P, R]):
    """A step. In workflow code its call is durable and must be awaited, also where the function is
    a plain `def`; anywhere else it is a plain call of `function`."""

    def __init__(self, function: Callable[P, Any], settings: StepSettings) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequestError(f"@step {_origin(function)} must return, not yield")
        functools.update_wrapper(self, function)
        self.function = function
        self.name = settings.name if settings.name is not None else function.__qualname__
        self.origin = _origin(function)
        self.is_async = inspect.iscoroutinefunction(function)
        self.signature = Signature(function)
        self.settings = settings
        self.timeout_ms = settings.timeout_ms

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        loop = current_loop()
        if loop is None:
            return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))
        # Encoded now, not when awaited: the caller may change its objects in between.
        return _outcome(loop, StepOperation(self, encode_call(args, kwargs)))

    def __repr__(self) -> str:
        return f"<step {self.name}>"


async def _outcome(loop: WorkflowLoop, operation: StepOperation) -> Any:
    # Not loop.create_future(): this one is never seen by the user's code, nor put into sets.
    future: asyncio.Future[Any] = asyncio.Future(loop=loop)
    operation.future = future
    loop.journal.ask(operation)
    try:
        return await future
    finally:
        loop.journal.withdraw(operation)  # without effect when it has its result


class StepDecorator(Protocol):
    """What `@step(...)` with arguments returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retries: int = DEFAULT_RETRIES,
    backoff: Backoff | Duration | None = None,
    retry_on: RetryOn | None = None,
    timeout: Duration | None = None,
) -> StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int = DEFAULT_RETRIES,
    backoff: Backoff | Duration | None = None,
    retry_on: RetryOn | None = None,
    timeout: Duration | None = None,
) -> Any:
    """Make a function (sync or async) a step.

    Args:
        name: how logs and events call it; default: the function's qualified name.
        retries: how often a failed attempt is repeated; 0: never.
        backoff: how long to wait before a retry: the first wait, or a `Backoff`.
        retry_on: which errors are worth a retry: an exception class, a tuple of them, or a
            function `(error) -> bool`. Any other fails the step at once. `RetryableError` is
            always retried, `FatalError` never.
        timeout: how long one attempt may take.

    Raises:
        InvalidRequestError: an argument is wrong, or the name is taken.
    """
    settings = checked_settings(
        name=name, retries=retries, backoff=backoff, retry_on=retry_on, timeout=timeout
    )

    def decorate(decorated: Callable[..., Any]) -> Step[..., Any]:
        made: Step[..., Any] = Step(decorated, settings)
        registry.add_step(made)
        return made

    return decorate if function is None else decorate(function)


def _origin(function: Any) -> str:
    return f"{function.__module__}:{function.__qualname__}"
