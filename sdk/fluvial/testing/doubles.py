"""Stand-ins for steps and workflows: mocks that answer in their place, and a record of all calls of
steps. What a workflow was called with stands in the log of its run."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fluvial.context import metadata
from fluvial.durations import Duration, to_seconds
from fluvial.errors import FatalError, InvalidRequestError
from fluvial.registry import Registry
from fluvial.steps import Step
from fluvial.workflows import Workflow

UNSET: Final[Any] = object()


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a step's body. Calls are equal when their arguments are."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    run_id: str = field(default="", compare=False)
    attempt: int = field(default=1, compare=False)
    key: str = field(default="", compare=False)  # the step's idempotency key

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={v!r}" for name, v in self.kwargs.items())]
        return f"call({', '.join(shown)})"


def call(*args: Any, **kwargs: Any) -> Call:
    """Return what `Environment.calls` holds for a call with these arguments."""
    return Call(args, kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a mock does instead of a step's body."""

    returns: Any = UNSET
    raises: BaseException | type[BaseException] | None = None
    does: Callable[..., Any] | None = None
    each: Sequence[Any] | None = None
    takes_ms: int = 0
    hangs: bool = False

    async def perform(self, count: int, name: str, args: Any, kwargs: Any) -> Any:
        """Do it for the `count`-th call, counted from 0."""
        if self.raises is not None:
            raise self.raises
        if self.does is not None:
            made = self.does(*args, **kwargs)
            return await made if inspect.isawaitable(made) else made
        if self.each is None:
            return None if self.returns is UNSET else self.returns
        if count >= len(self.each):
            raise FatalError(f"the mock of {name} has {len(self.each)} results, and no more")
        item = self.each[count]
        if isinstance(item, BaseException) or _is_error_class(item):
            raise item
        return item


class Doubles(Registry):
    """A registry whose steps are recorded, and mocked where a test says so."""

    def __init__(self, real: Registry, pause: Callable[[int | None], Awaitable[None]]) -> None:
        super().__init__()
        self._real = real
        self._pause = pause
        self._behaviours: dict[str, Behaviour] = {}  # of steps
        self._workflow_behaviours: dict[str, Behaviour] = {}
        self._calls: dict[str, list[Call]] = {}

    def find_workflow(self, name: str) -> Workflow[Any, Any] | None:
        """Return the workflow that runs under a name, or its stand-in."""
        workflow = self._real.find_workflow(name)
        behaviour = self._workflow_behaviours.get(name)
        return workflow if workflow is None or behaviour is None else _mocked(workflow, behaviour)

    def find_step(self, name: str) -> Step[Any, Any] | None:
        """Return the stand-in for the step of that name."""
        step = self._real.find_step(name)
        return None if step is None else self._stand_in(step)

    def mock(self, double_of: Step[..., Any] | Workflow[..., Any], behaviour: Behaviour) -> None:
        """Have something else done than the body of a step or a workflow.

        Raises:
            InvalidRequestError: a workflow cannot have one answer per call.
        """
        if isinstance(double_of, Step):
            self._behaviours[double_of.name] = behaviour
        elif behaviour.each is not None:
            raise InvalidRequestError("the mock of a workflow takes no each=: use does=")
        else:
            self._workflow_behaviours[double_of.name] = behaviour

    def restore(self, double_of: Step[..., Any] | Workflow[..., Any]) -> None:
        """Have its own body run again."""
        is_step = isinstance(double_of, Step)
        (self._behaviours if is_step else self._workflow_behaviours).pop(double_of.name, None)

    def calls(self, step: Step[Any, Any]) -> list[Call]:
        """Return the executions of a step's body so far, in the order in which they began."""
        return list(self._calls.get(step.name, ()))

    def _stand_in(self, step: Step[Any, Any]) -> Step[Any, Any]:
        double = copy.copy(step)
        behaviour = self._behaviours.get(step.name)
        if behaviour is not None:
            double.is_async = True
            double.function = self._mocked(step, behaviour)
        elif step.is_async:
            double.function = self._spied_async(step)
        else:
            double.function = self._spied(step)
        return double

    def _mocked(self, step: Step[Any, Any], behaviour: Behaviour) -> Callable[..., Any]:
        @functools.wraps(step.function)
        async def stand_in(*args: Any, **kwargs: Any) -> Any:
            count = self._record(step, args, kwargs)
            if behaviour.hangs:
                await self._wait_for_timeout(step)
            if 0 < step.settings.timeout_ms <= behaviour.takes_ms:
                await self._wait_for_timeout(step)
            if behaviour.takes_ms:
                await self._pause(behaviour.takes_ms)
            return await behaviour.perform(count, step.name, args, kwargs)

        return stand_in

    async def _wait_for_timeout(self, step: Step[Any, Any]) -> None:
        if step.settings.timeout_ms:
            await self._pause(step.settings.timeout_ms)
            raise TimeoutError(f"{step.name} took longer than {step.settings.timeout_ms} ms")
        await self._pause(None)

    def _spied_async(self, step: Step[Any, Any]) -> Callable[..., Any]:
        @functools.wraps(step.function)
        async def spied(*args: Any, **kwargs: Any) -> Any:
            self._record(step, args, kwargs)
            return await step.function(*args, **kwargs)

        return spied

    def _spied(self, step: Step[Any, Any]) -> Callable[..., Any]:
        @functools.wraps(step.function)
        def spied(*args: Any, **kwargs: Any) -> Any:
            self._record(step, args, kwargs)
            return step.function(*args, **kwargs)

        return spied

    def _record(self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        """Note a call; return how many there were before."""
        about = metadata()
        made = Call(args, kwargs, about.run_id, about.attempt, about.idempotency_key)
        calls = self._calls.setdefault(step.name, [])
        calls.append(made)
        return len(calls) - 1


def _mocked(workflow: Workflow[..., Any], behaviour: Behaviour) -> Workflow[..., Any]:
    @functools.wraps(workflow.function)
    async def stand_in(*args: Any, **kwargs: Any) -> Any:
        if behaviour.hangs:
            await asyncio.get_running_loop().create_future()
        if behaviour.takes_ms:
            await asyncio.sleep(behaviour.takes_ms / 1000)  # durable, in a workflow
        return await behaviour.perform(0, workflow.name, args, kwargs)

    double = copy.copy(workflow)
    double.function = stand_in
    return double


def behaviour(
    *,
    returns: Any = UNSET,
    raises: BaseException | type[BaseException] | None = None,
    does: Callable[..., Any] | None = None,
    each: Sequence[Any] | None = None,
    takes: Duration = 0,
    hangs: bool = False,
) -> Behaviour:
    """Return what a mock shall do.

    Raises:
        InvalidRequestError: it shall do two things at once.
    """
    chosen = [returns is not UNSET, raises is not None, does is not None, each is not None, hangs]
    if sum(chosen) > 1:
        raise InvalidRequestError("a mock does one of: returns, raises, does, each, hangs")
    takes_ms = round(to_seconds(takes, "takes") * 1000)
    return Behaviour(
        returns=returns, raises=raises, does=does, each=each, takes_ms=takes_ms, hangs=hangs
    )


def _is_error_class(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, BaseException)
