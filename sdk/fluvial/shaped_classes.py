"""How plain data becomes a value of a class that an annotation asks for.

Here constructors do run, as in any call: what comes from outside must be checked. Whatever they
raise is a SerializationError with the path of the value.
"""

from __future__ import annotations

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from fluvial.errors import SerializationError
from fluvial.json_scalars import kind_of
from fluvial.type_hints import bare, bound_hints_of, hints_of

if TYPE_CHECKING:
    from fluvial.shapes import Shape

ShapeOf = Callable[[Any], "Shape"]


def to_registered(cls: Any, deserialize: Callable[[Any], Any], value: Any, path: str) -> Any:
    """Make a value of a registered class."""
    if isinstance(value, cls):
        return value
    try:
        return deserialize(value)
    except Exception as error:
        raise _misfit(cls, path, error) from error


def to_model(cls: Any, is_plain: bool, value: Any, path: str) -> Any:
    """Make a pydantic model, by its own validation."""
    if isinstance(value, cls):
        return value
    try:
        return cls.model_validate_json(json.dumps(value)) if is_plain else cls.model_validate(value)
    except Exception as error:  # a validator may raise anything
        raise _invalid(cls, path, error) from error


def to_dataclass(
    cls: Any, arguments: tuple[Any, ...], shape_of: ShapeOf, value: Any, path: str
) -> Any:
    """Make a dataclass; its fields have their own shapes."""
    if isinstance(value, cls):
        return value
    given = _object(cls, value, path)
    return _make(cls, _shape_fields(cls, arguments, shape_of, given, path), path)


def to_fields(
    cls: Any, arguments: tuple[Any, ...], shape_of: ShapeOf, value: Any, path: str
) -> Any:
    """Make a TypedDict or a named tuple."""
    if isinstance(value, list) and hasattr(cls, "_fields"):
        items, names = cast("list[Any]", value), cls._fields
        if len(items) > len(names):
            raise SerializationError(path, f"must have {len(names)} items, got {len(items)}")
        value = dict(zip(names, items, strict=False))
    given = _object(cls, value, path)
    return _make(cls, _shape_fields(cls, arguments, shape_of, given, path), path)


def to_enum(cls: type[Enum], value: Any, path: str) -> Any:
    """Find the member of that value; where JSON has no such value, of that name."""
    if isinstance(value, cls):
        return value
    wanted = tuple(cast("list[Any]", value)) if isinstance(value, list) else value
    try:
        return cls(wanted)
    except Exception:  # noqa: BLE001 - _missing_ is the user's code
        if isinstance(value, str) and value in cls.__members__:
            return cls.__members__[value]
    choices = ", ".join(repr(member.value) for member in cls)
    raise SerializationError(path, f"must be one of {choices}, got {value!r}")


def _object(cls: Any, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise SerializationError(path, f"must be a {cls.__qualname__}, got {kind_of(value)}")
    given = cast("dict[str, Any]", value)
    known, required = parameters_of(cls)
    unknown = [name for name in given if name not in known]
    if unknown and known:
        raise SerializationError(
            path, f"{cls.__qualname__} has no {unknown[0]!r} (it has {', '.join(known)})"
        )
    missing = [name for name in required if name not in given]
    if missing:
        raise SerializationError(path, f"lacks {missing[0]!r}, which {cls.__qualname__} needs")
    return given


@functools.lru_cache(maxsize=4096)
def parameters_of(cls: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names that a class takes, and those it needs."""
    if typing.is_typeddict(cls):
        return _keys_of(cls)
    known: list[str] = []
    required_names: list[str] = []
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):  # a class that does not tell: it decides by itself
        return (), ()
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            return (), tuple(required_names)  # it takes any name
        if parameter.kind is not parameter.VAR_POSITIONAL:
            known.append(parameter.name)
            if parameter.default is parameter.empty:
                required_names.append(parameter.name)
    return tuple(known), tuple(required_names)


def _keys_of(cls: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    hints = hints_of(cls, include_extras=True)
    required: frozenset[str] = cls.__required_keys__
    # Python itself overlooks NotRequired and Required in annotations that are texts.
    origins = {name: typing.get_origin(hint) for name, hint in hints.items()}
    needed = tuple(
        name
        for name, origin in origins.items()
        if origin is typing.Required or (name in required and origin is not typing.NotRequired)
    )
    return tuple(hints), needed


def _shape_fields(
    cls: Any, arguments: tuple[Any, ...], shape_of: ShapeOf, given: Mapping[str, Any], path: str
) -> dict[str, Any]:
    hints = hints_of_fields(cls, arguments)
    shaped = dict(given)  # in the given order
    for name in sorted(given, key=lambda name: not _is_literal(hints.get(name))):
        shaped[name] = shape_of(hints.get(name)).apply(given[name], True, f"{path}.{name}")
    return shaped


def _is_literal(hint: Any) -> bool:
    """Whether it tells members of a union apart: then it is looked at before what is costly."""
    return typing.get_origin(bare(hint)) is typing.Literal


@functools.lru_cache(maxsize=4096)
def hints_of_fields(cls: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
    """The annotations of a class's fields, those of `Box[int]` for arguments `(int,)`."""
    return bound_hints_of(cls, arguments)


def _make(cls: Any, shaped: dict[str, Any], path: str) -> Any:
    try:
        return cls(**shaped)
    except Exception as error:  # __init__ and __post_init__ are the user's code
        raise _misfit(cls, path, error) from error


def _misfit(cls: Any, path: str, error: Exception) -> SerializationError:
    text = str(error) if isinstance(error, (TypeError, ValueError)) else repr(error)
    return SerializationError(path, f"is not a {cls.__qualname__}: {text}")


def _invalid(cls: Any, path: str, error: Exception) -> SerializationError:
    """The first of a model's complaints, with the path of the field."""
    if not isinstance(error, ValueError) or not hasattr(error, "errors"):
        return _misfit(cls, path, error)
    complaints: list[dict[str, Any]] = cast("Any", error).errors(include_url=False)
    first = complaints[0]
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    return SerializationError(
        path + _location(first["loc"]), f"is not valid in {cls.__qualname__}: {first['msg']}{more}"
    )


def _location(parts: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
