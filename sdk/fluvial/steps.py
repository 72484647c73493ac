"""`@step`: a unit of work inside a run: executed at least once, recorded exactly once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from fluvial.durations import Duration
from fluvial.errors import InvalidRequestError, SerializationError
from fluvial.events import EventType
from fluvial.journal import Operation
from fluvial.loop import WorkflowLoop, current_loop
from fluvial.registry import registry
from fluvial.signatures import Signature, encode_call
from fluvial.step_origins import check_call, check_definition, is_in_class, is_local, origin_of
from fluvial.step_settings import (
    Backoff,
    Exhausted,
    RetryOn,
    StepSettings,
    checked_settings,
)

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

_FIRST: Final = "args[0]"
_NAME: Final = "__qualname__"
_ADVICE: Final = "the object of a method travels with the call: a dataclass or a pydantic model can"


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
        return self.step.scheduled_meta

    def take_plaintext(self) -> bytes:
        plaintext, self._plaintext = self._plaintext, b""
        return plaintext


class Step(Generic[P, R]):
    """A step. In workflow code its call is durable and must be awaited, also where the function is
    a plain `def`; anywhere else it is a plain call of `function`.

    In a class body it is a method: its object travels as the first argument.
    """

    def __init__(self, function: Callable[P, Any], settings: StepSettings) -> None:
        self._binds = not isinstance(function, staticmethod)
        self.function: Callable[P, Any] = _checked_function(function)
        functools.update_wrapper(self, self.function)
        self.name = settings.name if settings.name is not None else self.function.__qualname__
        self.origin = origin_of(self.function)
        self.is_async = inspect.iscoroutinefunction(self.function)
        self.is_late = registry.is_complete
        self.signature = Signature(self.function)
        self.settings = settings
        self.scheduled_meta = {"name": self.name, **settings.rules()}
        self._is_doubtful = self.is_late or is_local(self.function)
        self._owner: type | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        if self._binds:
            self._owner = owner
            self.signature.bind_to(owner)

    @overload
    def __get__(self, instance: None, owner: type, /) -> Step[P, R]: ...
    @overload
    def __get__(
        self: Step[Concatenate[T, Q], R], instance: T, owner: type | None = None, /
    ) -> BoundStep[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None, /) -> Any:
        return BoundStep(self, instance) if self._binds and instance is not None else self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        loop = current_loop()
        if loop is None:
            return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))
        if self._is_doubtful:
            check_call(self)
        try:  # now, not when it is awaited: the caller may change its objects in between
            plaintext = encode_call(args, kwargs)
        except SerializationError as error:
            raise self._named(error) from error.__cause__
        return _outcome(loop, StepOperation(self, plaintext))

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def _named(self, error: SerializationError) -> SerializationError:
        """Return the error with the object of a method called by its name."""
        if self._owner is None or not error.path.startswith(_FIRST):
            return error
        path = f"self{error.path.removeprefix(_FIRST)}"
        return SerializationError(path, f"{error.reason}; {_ADVICE}")


class BoundStep(Generic[Q, R]):
    """A step that is a method, together with its object."""

    __slots__ = ("__self__", "step")

    def __init__(self, step: Step[Any, R], instance: object) -> None:
        self.step = step
        self.__self__ = instance

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> Coroutine[Any, Any, R]:
        return self.step(self.__self__, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<step {self.step.name} of {self.__self__!r}>"


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
    retries: int | None = None,
    backoff: Backoff | Duration | None = None,
    retry_on: RetryOn | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    heartbeat: Duration | None = None,
    exhausted: Exhausted = "fail",
    at_most_once: bool = False,
    isolated: bool = False,
) -> StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retries: int | None = None,
    backoff: Backoff | Duration | None = None,
    retry_on: RetryOn | None = None,
    timeout: Duration | None = None,
    deadline: Duration | None = None,
    heartbeat: Duration | None = None,
    exhausted: Exhausted = "fail",
    at_most_once: bool = False,
    isolated: bool = False,
) -> Any:
    """Make a function (sync or async) a step.

    Args:
        name: how logs and events call it; default: the function's qualified name.
        retries: how often a failed attempt is repeated; 3 unless said, 0 with `at_most_once`.
        backoff: how long to wait before a retry: the first wait, or a `Backoff`.
        retry_on: which errors are worth a retry: an exception class, a tuple of them, or a
            function `(error) -> bool`. Any other fails the step at once. `RetryableError` is
            always retried, `FatalError` never.
        timeout: how long one attempt may take.
        deadline: how long the step may take from its call on, with all attempts and waits.
        heartbeat: how long the body may go without calling `fluvial.heartbeat()`; then the attempt
            is cancelled and has failed.
        exhausted: what follows when the last attempt has failed: "fail" the step, or "pause" the
            run, so that somebody can mend what is wrong and resume it with new attempts.
        at_most_once: an execution that a fault cut off is not repeated; the step fails with a
            `StepInterruptedError` as its cause. Errors are still retried as `retries` says.
        isolated: each execution has a process of its own, which ends with it. That the process
            crashes, or is killed, is a failed attempt and touches nothing else.

    Raises:
        InvalidRequestError: an argument is wrong, the name is taken, or it cannot be a step.
        UnresolvableStepError: workflow code defines it.
    """
    settings = checked_settings(
        name=name,
        retries=retries,
        backoff=backoff,
        retry_on=retry_on,
        timeout=timeout,
        deadline=deadline,
        heartbeat=heartbeat,
        exhausted=exhausted,
        at_most_once=at_most_once,
        isolated=isolated,
    )

    def decorate(decorated: Callable[..., Any]) -> Step[..., Any]:
        made: Step[..., Any] = Step(decorated, settings)
        check_definition(made)
        registry.add_step(made)
        return made

    return decorate if function is None else decorate(function)


def _checked_function(given: Any) -> Callable[..., Any]:
    """Return the plain function of what was decorated; refuse what cannot be a step."""
    function = _undescribed(given)
    if isinstance(function, type) or not callable(function) or not hasattr(function, _NAME):
        raise InvalidRequestError(f"@step needs a function, got {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidRequestError(f"@step {origin_of(function)} must return, not yield")
    if isinstance(given, classmethod) or _takes_class(function):
        raise InvalidRequestError(
            f"@step {origin_of(function)} is a classmethod, and a class cannot travel to another"
            " process: make it a staticmethod, or a function of the module"
        )
    return cast("Callable[..., Any]", function)


def _undescribed(given: Any) -> Any:
    if isinstance(given, staticmethod | classmethod):
        return cast("Any", given).__func__
    return given


def _takes_class(function: Callable[..., Any]) -> bool:
    """Whether it will be made a classmethod by the next decorator: by then it is too late."""
    code = getattr(function, "__code__", None)
    first = code.co_varnames[0] if code is not None and code.co_argcount else ""
    return first == "cls" and is_in_class(function)
