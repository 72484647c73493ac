"""Shapes: what an annotation asks of a decoded value.

A value from the codec already has its types; only classes that could not be found by name, and
plain dicts handed over where a class is annotated, are left to shape. A value from JSON has few
types, so there every annotation counts. An annotation is compiled once into converters; `None`
stands for "nothing to do", which is the common case and costs nothing.
"""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal, Union, cast
from uuid import UUID

from fluvial.classes import is_model
from fluvial.durations import to_seconds
from fluvial.errors import SerializationError

Convert = Callable[[Any, str], Any]
"""(value, path of the value) → the value in the annotated type; raises SerializationError."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """A compiled annotation."""

    stored: Convert | None  # for values from the codec
    plain: Convert | None  # for values from JSON


ANY: Final = Shape(None, None)


def shape_of(annotation: Any) -> Shape:
    """Return the compiled form of an annotation (None and Any: no shape)."""
    try:
        return _cached_shape(annotation)
    except TypeError:  # not hashable, e.g. Annotated[int, {}]
        return Shape(_compile(annotation, False), _compile(annotation, True))


@functools.lru_cache(maxsize=4096)
def _cached_shape(annotation: Any) -> Shape:
    return Shape(_compile(annotation, False), _compile(annotation, True))


def hints_of(owner: Any) -> dict[str, Any]:
    """`typing.get_type_hints`, but an annotation that does not resolve is left out."""
    try:
        return typing.get_type_hints(owner)
    except Exception:  # noqa: BLE001 - annotations run the user's code
        return _resolvable_hints(owner)


def _resolvable_hints(owner: Any) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for name, annotation in getattr(owner, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(holder, getattr(owner, "__globals__", None)))
        except Exception:  # noqa: BLE001 - as above: without a hint the value stays as it is
            continue
    return hints


def _compile(annotation: Any, plain: bool) -> Convert | None:
    if annotation is Any or annotation is None or annotation is object:
        return None
    annotation = _unwrap(annotation)
    origin = typing.get_origin(annotation)
    if origin is Union or origin is types.UnionType:
        return _union(typing.get_args(annotation), plain)
    if origin is Literal:
        return _literal(typing.get_args(annotation)) if plain else None
    if origin is not None:
        return _generic(origin, typing.get_args(annotation), plain)
    return _class(annotation, plain) if isinstance(annotation, type) else None


def _unwrap(annotation: Any) -> Any:
    """Strip Annotated, NewType and `type X = …`."""
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif hasattr(annotation, "__value__") and not isinstance(annotation, type):
            annotation = annotation.__value__
        else:
            return annotation


def _union(members: tuple[Any, ...], plain: bool) -> Convert | None:
    converters = [(m, _compile(m, plain)) for m in members]
    if all(convert is None for _, convert in converters):
        return None
    exact = tuple(m for m in members if isinstance(m, type))

    def convert_union(value: Any, path: str) -> Any:
        if value is None and (type(None) in members or None in members):
            return None
        if type(value) in exact:
            return value
        reason = ""
        for _, convert in converters:
            if convert is None:
                return value
            try:
                return convert(value, path)
            except SerializationError as error:
                reason = error.reason
        raise SerializationError(path, f"fits no member of the union ({reason})")

    return convert_union


def _literal(choices: tuple[Any, ...]) -> Convert:
    def convert_literal(value: Any, path: str) -> Any:
        for choice in choices:
            wanted = choice.value if isinstance(choice, Enum) else choice
            if value == wanted and type(value) is type(wanted):
                return choice
        raise SerializationError(path, f"must be one of {', '.join(map(repr, choices))}")

    return convert_literal


def _generic(origin: Any, arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    if not isinstance(origin, type):
        return None
    origin = cast("type[Any]", origin)
    if dataclasses.is_dataclass(origin) or is_model(origin):
        return _class(origin, plain)
    if issubclass(origin, tuple):
        return _tuple(arguments, plain)
    if issubclass(origin, collections.abc.Mapping) and len(arguments) == 2:
        return _mapping(arguments, plain)
    if issubclass(origin, collections.abc.Iterable) and len(arguments) == 1:
        return _iterable(origin, arguments[0], plain)
    return None


def _iterable(origin: Any, item: Any, plain: bool) -> Convert | None:
    convert = _compile(item, plain)
    make: Any = origin if origin in {set, frozenset, collections.deque} else list
    if issubclass(origin, collections.abc.Set) and make is list:
        make = set
    if convert is None and not plain:
        return None

    def convert_items(value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple, set, frozenset)):
            raise SerializationError(path, f"must be a list, got {_kind(value)}")
        items = cast("collections.abc.Collection[Any]", value)
        if convert is None:
            return make(items)
        return make(convert(each, f"{path}[{i}]") for i, each in enumerate(items))

    return convert_items


def _tuple(arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    variadic = len(arguments) == 2 and arguments[1] is ...
    converters = [_compile(a, plain) for a in arguments if a is not ...]
    if not plain and all(convert is None for convert in converters):
        return None

    def convert_tuple(value: Any, path: str) -> Any:
        if not isinstance(value, (list, tuple)):
            raise SerializationError(path, f"must be a list, got {_kind(value)}")
        items = cast("list[Any]", value)
        each = converters * len(items) if variadic else converters
        if len(each) != len(items):
            raise SerializationError(path, f"must have {len(each)} items, got {len(items)}")
        pairs = enumerate(zip(items, each, strict=True))
        return tuple(c(v, f"{path}[{i}]") if c is not None else v for i, (v, c) in pairs)

    return convert_tuple


def _mapping(arguments: tuple[Any, ...], plain: bool) -> Convert | None:
    key, item = _compile(arguments[0], plain), _compile(arguments[1], plain)
    if plain and arguments[0] is int:  # JSON's keys are always texts
        key = _integer_key
    if key is None and item is None and not plain:
        return None

    def convert_mapping(value: Any, path: str) -> Any:
        if not isinstance(value, dict):
            raise SerializationError(path, f"must be an object, got {_kind(value)}")
        return {
            (key(k, path) if key is not None else k): (
                item(v, f"{path}[{k!r}]") if item is not None else v
            )
            for k, v in cast("dict[Any, Any]", value).items()
        }

    return convert_mapping


def _integer_key(value: Any, path: str) -> Any:
    try:
        return int(value)
    except ValueError:
        raise SerializationError(path, f"has a key {value!r} that is not an integer") from None


def _class(cls: Any, plain: bool) -> Convert | None:
    if is_model(cls):
        return functools.partial(_to_model, cls, plain)
    if dataclasses.is_dataclass(cls):
        return functools.partial(_to_dataclass, cls)
    if issubclass(cls, Enum):
        return functools.partial(_to_enum, cls)
    if typing.is_typeddict(cls) or hasattr(cls, "_fields"):
        return functools.partial(_to_fields, cls) if plain else None
    if not plain:
        return None
    scalar = _SCALARS.get(cls)
    if scalar is None:
        return None
    return functools.partial(_to_scalar, cls, scalar)


def _to_model(cls: Any, plain: bool, value: Any, path: str) -> Any:
    if isinstance(value, cls):
        return value
    try:
        if plain:
            return cls.model_validate_json(json.dumps(value))
        return cls.model_validate(value)
    except ValueError as error:  # pydantic's ValidationError is one
        raise SerializationError(path, f"is not a {cls.__qualname__}: {error}") from error


def _to_dataclass(cls: Any, value: Any, path: str) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, dict):
        raise SerializationError(path, f"must be a {cls.__qualname__}, got {_kind(value)}")
    given = cast("dict[str, Any]", value)
    known = {field.name: field for field in dataclasses.fields(cls) if field.init}
    _refuse_unknown(cls, given, known, path)
    shaped = _shape_fields(cls, given, path)
    try:
        return cls(**shaped)
    except (TypeError, ValueError) as error:
        raise SerializationError(path, f"is not a {cls.__qualname__}: {error}") from error


def _to_fields(cls: Any, value: Any, path: str) -> Any:
    """A TypedDict or a named tuple."""
    if isinstance(value, list) and hasattr(cls, "_fields"):
        value = dict(zip(cls._fields, cast("list[Any]", value), strict=False))
    if not isinstance(value, dict):
        raise SerializationError(path, f"must be a {cls.__qualname__}, got {_kind(value)}")
    given = cast("dict[str, Any]", value)
    _refuse_unknown(cls, given, hints_of(cls), path)
    shaped = _shape_fields(cls, given, path)
    try:
        return cls(**shaped)
    except TypeError as error:
        raise SerializationError(path, f"is not a {cls.__qualname__}: {error}") from error


def _refuse_unknown(
    cls: Any, given: Mapping[str, Any], known: Mapping[str, Any], path: str
) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        raise SerializationError(
            path, f"{cls.__qualname__} has no {unknown[0]!r} (it has {', '.join(known)})"
        )


def _shape_fields(cls: Any, given: dict[str, Any], path: str) -> dict[str, Any]:
    hints = hints_of(cls)
    shaped: dict[str, Any] = {}
    for name, value in given.items():
        convert = shape_of(hints.get(name)).plain
        shaped[name] = convert(value, f"{path}.{name}") if convert is not None else value
    return shaped


def _to_enum(cls: type[Enum], value: Any, path: str) -> Any:
    if isinstance(value, cls):
        return value
    try:
        return cls(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in cls)
        raise SerializationError(path, f"must be one of {choices}, got {value!r}") from None


def _to_scalar(cls: Any, make: Callable[[Any], Any], value: Any, path: str) -> Any:
    # bool is an int to Python and not to anybody who writes JSON.
    if type(value) is cls or (type(value) is not bool and isinstance(value, cls)):
        return value
    try:
        return make(value)
    except (TypeError, ValueError, ArithmeticError):
        name = cls.__name__
        raise SerializationError(path, f"is not a valid {name}: {_kind(value)}") from None


def _kind(value: Any) -> str:
    cls = cast("type[Any]", type(value))
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(
        cls, cls.__name__
    )


def _refuse(value: Any) -> Any:
    raise TypeError(_kind(value))


def _number(value: Any) -> float:
    return float(value) if type(value) in {int, float} else _refuse(value)


def _integer(value: Any) -> int:
    return int(value) if type(value) is float and value.is_integer() else _refuse(value)


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value)) if type(value) in {int, float, str} else _refuse(value)


def _of_text(make: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: make(value) if isinstance(value, str) else _refuse(value)


def _of_list(make: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: (
        make(cast("list[Any]", value)) if isinstance(value, list) else _refuse(value)
    )


def _seconds(value: Any) -> timedelta:
    return timedelta(seconds=to_seconds(value))


_SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    str: _refuse,
    bool: _refuse,
    int: _integer,
    float: _number,
    bytes: _of_text(lambda text: base64.b64decode(text, validate=True)),
    datetime: _of_text(datetime.fromisoformat),
    date: _of_text(date.fromisoformat),
    time: _of_text(time.fromisoformat),
    timedelta: _seconds,
    Decimal: _decimal,
    UUID: _of_text(UUID),
    Path: _of_text(Path),
    PurePosixPath: _of_text(PurePosixPath),
    set: _of_list(set),
    frozenset: _of_list(frozenset),
    tuple: _of_list(tuple),
    list: _refuse,
    dict: _refuse,
    type(None): _refuse,
}
