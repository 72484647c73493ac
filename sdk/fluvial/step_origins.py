"""Where a step is defined, and whether another process would find it there.

A step's execution may go to any instance of the deployment, so the step must be registered by
importing the deployment's modules. One that a function defines while it runs is known to that
process alone, and what it captures does not travel. Such steps work where one process does
everything (a test); elsewhere their call is refused, with the way out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fluvial.errors import UnresolvableStepError
from fluvial.loop import current_loop
from fluvial.registry import registry

if TYPE_CHECKING:
    from fluvial.steps import Step

_MOVE = "define it at module level"


def origin_of(function: Callable[..., Any]) -> str:
    """Return module and qualified name of a function."""
    return f"{function.__module__}:{function.__qualname__}"


def is_local(function: Callable[..., Any]) -> bool:
    """Whether another function defines this one."""
    return "<locals>" in function.__qualname__


def is_in_class(function: Callable[..., Any]) -> bool:
    """Whether a class body defines this function."""
    holder = function.__qualname__.rpartition(".")[0]
    return bool(holder) and not holder.endswith("<locals>")


def check_definition(step: Step[..., Any]) -> None:
    """Refuse a step that workflow code defines: each run would replace the others' step.

    Raises:
        UnresolvableStepError
    """
    if is_local(step.function) and current_loop() is not None:
        problem = "is defined by workflow code, so every run and every replay makes another one"
        raise _refusal(step, problem, _move(step))


def check_call(step: Step[..., Any]) -> None:
    """Refuse to schedule a step that its execution would not find, or would mistake.

    Raises:
        UnresolvableStepError
    """
    if step.is_late and is_local(step.function):
        problem = "is defined inside a function, so no other instance has it"
        raise _refusal(step, problem, _move(step))
    if step.is_late:
        problem = "was imported after the deployment was loaded, so other instances may not have it"
        fix = (
            f"import {step.function.__module__} at the top of a module that the deployment loads,"
            " or name it under `workflows` in the manifest"
        )
        raise _refusal(step, problem, fix)
    if is_local(step.function) and registry.steps.get(step.name) is not step:
        problem = "was defined again under the same name, so the other one would be executed"
        fix = f'give each a name of its own, @step(name="…"), or {_move(step)}'
        raise _refusal(step, problem, fix)


def _move(step: Step[..., Any]) -> str:
    captured = ", ".join(_captured(step.function))
    return f"{_MOVE} and pass what it captures ({captured}) as arguments" if captured else _MOVE


def _refusal(step: Step[..., Any], problem: str, fix: str) -> UnresolvableStepError:
    return UnresolvableStepError(step.name, _place_of(step.function), problem, fix)


def _captured(function: Callable[..., Any]) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)
    return () if code is None else code.co_freevars


def _place_of(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return origin_of(function) if code is None else f"{code.co_filename}:{code.co_firstlineno}"
