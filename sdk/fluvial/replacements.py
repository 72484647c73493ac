"""Replacements of functions of Python's own, which pass for the originals outside workflows.

A replacement has the original's name, module, documentation and signature. A function written in C
differs from Python's in a way that programs rely on: as a class attribute (`converter =
time.gmtime`) it does not take the instance for its first argument. So what replaces one is a bound
method. It is pickled and copied by its name, as the original is.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from inspect import Parameter
from types import MethodType
from typing import Any

Function = Callable[..., Any]
Make = Callable[[Function], Function]


def replace_function(owner: Any, name: str, make: Make) -> None:
    """Put `make(original)` in the place of a function written in Python.

    `owner` is a module or a class; one that has no such function (on another platform, in another
    version of Python) is left alone.
    """
    original = getattr(owner, name, None)
    if original is not None:
        setattr(owner, name, functools.wraps(original)(make(original)))


def replace_builtin(module: Any, name: str, make: Make) -> None:
    """Put `make(original)` in the place of a module's function that is written in C, or of a bound
    method; what `make` returns gets an argument of no use before the caller's.

    A module that has no such function is left alone.
    """
    original = getattr(module, name, None)
    if original is None:
        return
    made: Any = functools.wraps(original)(make(original))
    made.__qualname__ = name  # also of a method of an object that the module hides
    made.__module__ = module.__name__
    signature = _signature_of(original)
    if signature is not None:
        ignored = Parameter("_home", Parameter.POSITIONAL_ONLY)
        made.__signature__ = signature.replace(parameters=[ignored, *signature.parameters.values()])
    setattr(module, name, MethodType(made, _Home(module.__name__)))


def _signature_of(original: Function) -> inspect.Signature | None:
    try:
        return inspect.signature(original)
    except ValueError:  # it has none that can be read, and neither has the replacement
        return None


class _Home:
    """Stands for a module as `__self__` of a replacement: modules cannot be pickled or copied."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Home:
        return self

    def __reduce__(self) -> tuple[Function, tuple[str]]:
        return importlib.import_module, (self._name,)
