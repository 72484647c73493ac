"""Reading annotations: hints that resolve, aliases, and type variables that are bound."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any, Generic, cast


def hints_of(owner: Any, *, include_extras: bool = False) -> dict[str, Any]:
    """`typing.get_type_hints`, but an annotation that does not resolve is left out."""
    try:
        return typing.get_type_hints(owner, include_extras=include_extras)
    except Exception:  # noqa: BLE001 - annotations run the user's code
        return _resolvable_hints(owner)


def bound_hints_of(cls: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The hints of a generic class with its type variables bound: those of `Box[int]`."""
    hints = hints_of(cls)
    bound = _bindings(cls, arguments)
    seen: set[str] = set()
    for base in cls.__mro__:
        for name in inspect.get_annotations(base).keys() & hints.keys() - seen:
            seen.add(name)
            hints[name] = bind(hints[name], bound.get(base, {}))
    return hints


def bind(annotation: Any, bound: Mapping[Any, Any]) -> Any:
    """Put types in place of type variables."""
    if not bound:
        return annotation
    if isinstance(annotation, typing.TypeVar):
        return bound.get(annotation, annotation)
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ())
    if not parameters or isinstance(annotation, type):
        return annotation
    try:
        return annotation[tuple(bound.get(each, each) for each in parameters)]
    except TypeError:  # of a kind that is not bound here, such as a ParamSpec
        return annotation


def bare(annotation: Any) -> Any:
    """Strip Annotated, NewType, Final, ClassVar and InitVar."""
    while True:
        origin = typing.get_origin(annotation)
        if origin in {typing.Annotated, typing.Final, typing.ClassVar}:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif isinstance(annotation, dataclasses.InitVar):
            annotation = cast("Any", annotation).type
        else:
            return annotation


def alias_of(annotation: Any) -> Any:
    """Return the alias behind `type X = …` or `X[int]` (typing_extensions' as well), else None."""
    for candidate in (annotation, typing.get_origin(annotation)):
        if type(candidate).__name__ == "TypeAliasType":
            return candidate
    return None


def value_of_alias(annotation: Any) -> Any:
    """Return what an alias stands for, its type variables bound; Any if that does not resolve."""
    alias = alias_of(annotation)
    bound = dict(zip(alias.__type_params__, typing.get_args(annotation), strict=False))
    try:
        return bind(_written_value(alias), bound)
    except Exception:  # noqa: BLE001 - annotations run the user's code
        return Any


def _written_value(alias: Any) -> Any:
    value = alias.__value__
    if not isinstance(value, str):
        return value
    # typing_extensions' aliases may name what comes later.
    holder = types.SimpleNamespace(__annotations__={"value": value})
    return typing.get_type_hints(holder, vars(sys.modules[alias.__module__]))["value"]


def _resolvable_hints(owner: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for name, annotation in getattr(owner, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(holder, getattr(owner, "__globals__", None)))
        except Exception:  # noqa: BLE001 - as above: without a hint the value stays as it is
            continue
    return hints


def _bindings(cls: Any, arguments: tuple[Any, ...]) -> dict[Any, dict[Any, Any]]:
    """What each class in the ancestry calls by which type variable."""
    own = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    found = {cls: own}
    written: tuple[Any, ...] = cls.__dict__.get("__orig_bases__", ())
    for base in written:
        origin = typing.get_origin(base)
        if isinstance(origin, type) and origin is not Generic:
            found |= _bindings(origin, tuple(bind(each, own) for each in typing.get_args(base)))
    for base in cls.__bases__:
        if base is not object and base not in found:
            found |= {k: v for k, v in _bindings(base, ()).items() if k not in found}
    return found
