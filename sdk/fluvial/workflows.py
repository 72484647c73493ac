"""`@workflow`: durable functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, overload

from fluvial.errors import InvalidRequestError
from fluvial.registry import registry
from fluvial.signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")


class Workflow(Generic[P, R]):
    """A durable function. `fluvial.start` runs it durably; calling it is a plain call."""

    def __init__(self, function: Callable[P, Coroutine[Any, Any, R]], name: str | None) -> None:
        if not inspect.iscoroutinefunction(function):
            raise InvalidRequestError(
                f"@workflow needs an `async def` function, and {_origin(function)} is not one;"
                " for ordinary work use @step"
            )
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name if name is not None else function.__qualname__
        self.origin = _origin(function)
        self.signature = Signature(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Coroutine[Any, Any, Any]] | None = None, /, *, name: str | None = None
) -> Any:
    """Make an `async def` function durable: it survives crashes and deploys.

    Its code must be repeatable: everything that touches the world belongs into a `@step`.

    Raises:
        InvalidRequestError: the function is not async, or the name is taken.
    """

    def decorate(
        decorated: Callable[..., Coroutine[Any, Any, Any]],
    ) -> Workflow[..., Any]:
        made: Workflow[..., Any] = Workflow(decorated, name)
        registry.add_workflow(made)
        return made

    return decorate if function is None else decorate(function)


def _origin(function: Any) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}:{getattr(function, '__qualname__', repr(function))}"
