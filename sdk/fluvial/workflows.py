"""`@workflow`: durable functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, ParamSpec, TypeVar, overload

from fluvial.crons import Cron
from fluvial.errors import CronError, InvalidRequestError
from fluvial.registry import registry
from fluvial.signatures import Signature

P = ParamSpec("P")
R = TypeVar("R")
Crons = str | Cron | Sequence[str | Cron]
"""One cron or several; a text is the schedule of a `Cron` that is otherwise as by default."""


class Workflow(Generic[P, R]):
    """A durable function. `fluvial.start` runs it durably; calling it is a plain call."""

    def __init__(
        self, function: Callable[P, Coroutine[Any, Any, R]], name: str | None, cron: Crons = ()
    ) -> None:
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
        self.crons = _crons(self.name, cron)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name}>"


@overload
def workflow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *, name: str | None = None, cron: Crons = ()
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    function: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    name: str | None = None,
    cron: Crons = (),
) -> Any:
    """Make an `async def` function durable: it survives crashes and deploys.

    Its code must be repeatable: everything that touches the world belongs into a `@step`.

    Args:
        name: what it is called; the function's qualified name where it is not given.
        cron: when the app's production deployment starts runs of it, such as `"0 3 * * *"`.

    Raises:
        InvalidRequestError: the function is not async, or the name is taken.
        CronError: a cron is wrong.
    """

    def decorate(
        decorated: Callable[..., Coroutine[Any, Any, Any]],
    ) -> Workflow[..., Any]:
        made: Workflow[..., Any] = Workflow(decorated, name, cron)
        registry.add_workflow(made)
        return made

    return decorate if function is None else decorate(function)


def _crons(workflow: str, given: Crons) -> tuple[Cron, ...]:
    listed = (given,) if isinstance(given, str | Cron) else given
    crons = tuple(cron if isinstance(cron, Cron) else Cron(cron) for cron in listed)
    names = [cron.name if cron.name is not None else workflow for cron in crons]
    for name in names:
        if names.count(name) > 1:
            raise CronError(
                "name",
                f"{name!r} is that of {names.count(name)} crons of workflow {workflow!r}: name each"
                ' of them, Cron("…", name="…"), for what is known of a cron goes by its name',
            )
    return crons


def _origin(function: Any) -> str:
    module = getattr(function, "__module__", "?")
    return f"{module}:{getattr(function, '__qualname__', repr(function))}"
