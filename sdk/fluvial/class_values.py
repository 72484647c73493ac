"""How values of users' classes are written down: enums, named tuples, dataclasses, models.

Recorded is the class's name and the value's state. On the way back no `__init__` runs: the state
was valid when it was written. Where the class is not imported, the state comes back as plain data,
which a function's annotation may then shape (`fluvial.shapes`).

Classes change between deployments: a field that the state lacks gets its default, one that the
class has no more is left out.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, cast

from fluvial.classes import (
    extra_state,
    find_class,
    find_type,
    is_made_by_python,
    is_model,
    is_named_tuple,
    name_of,
    name_of_model,
    slots_of,
)
from fluvial.packing import (
    Code,
    UnreadableValueError,
    UnsupportedValueError,
    define_family,
    pack,
    unpack,
)

_FIELDS_SET: Final = "__pydantic_fields_set__"


def define_class_values() -> None:
    """Add these families to the table."""
    define_family(Code.ENUM, lambda cls: issubclass(cls, Enum), _pack_enum, _unpack_enum)
    define_family(Code.DATACLASS, dataclasses.is_dataclass, _pack_dataclass, _unpack_dataclass)
    define_family(Code.MODEL, is_model, _pack_model, _unpack_model)
    define_family(Code.NAMED_TUPLE, is_named_tuple, _pack_named_tuple, _unpack_named_tuple)


# Enums


def _pack_enum(value: Enum) -> bytes:
    try:
        return pack([name_of(type(value)), value.value])
    except UnsupportedValueError:
        return pack([name_of(type(value)), None, value.name])


def _unpack_enum(data: bytes) -> Any:
    name, value, *member = unpack(data)
    cls = find_class(name)
    if cls is None or not issubclass(cls, Enum):
        return member[0] if member else value
    try:
        return cls[member[0]] if member else cls(value)
    except (KeyError, ValueError) as error:
        found = member[0] if member else value
        raise UnreadableValueError(f"{found!r} is not a member of {name} here") from error


# Named tuples


def _pack_named_tuple(value: Any) -> bytes:
    if getattr(value, "__dict__", None):
        raise UnsupportedValueError("a named tuple with attributes of its own cannot be stored")
    return pack([name_of(cast("type[Any]", type(value))), list(value)])


def _unpack_named_tuple(data: bytes) -> Any:
    name, items = unpack(data)
    cls = find_class(name)
    if cls is None or not is_named_tuple(cls):
        return tuple(items)
    fields: tuple[str, ...] = cls._fields
    defaults: dict[str, Any] = cls._field_defaults
    missing = fields[len(items) :]
    if len(items) > len(fields) or not defaults.keys() >= set(missing):
        raise UnreadableValueError(f"{len(items)} items do not make a {name}, which has {fields}")
    # Not through `cls`, whose __new__ may be the user's.
    return cast("Any", tuple).__new__(cls, [*items, *(defaults[field] for field in missing)])


# Dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of a dataclass."""

    fields: dict[str, dataclasses.Field[Any]]
    names: frozenset[str]
    slots: frozenset[str]  # beyond its fields
    is_plain: bool


@functools.lru_cache(maxsize=4096)
def _plan_of(cls: Any) -> _Plan:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    names = frozenset(fields)
    return _Plan(fields, names, slots_of(cls) - names, is_made_by_python(cls))


def _pack_dataclass(value: Any) -> bytes:
    cls = cast("Any", type(value))
    plan = _plan_of(cls)
    try:
        state = {name: getattr(value, name) for name in plan.fields}
    except AttributeError:  # a field with init=False that was never set
        state = {name: getattr(value, name) for name in plan.fields if hasattr(value, name)}
    if not plan.is_plain:
        raise UnsupportedValueError(
            f"the dataclass {cls.__qualname__} cannot be stored, as it derives from a class written"
            " in C; register it (fluvial.register_serializable)"
        )
    held: Mapping[str, Any] = getattr(value, "__dict__", {})
    if plan.slots or held.keys() - plan.names:
        extra = extra_state(cls, {k: v for k, v in held.items() if k not in plan.names})
        extra |= {name: getattr(value, name) for name in plan.slots if hasattr(value, name)}
        if extra:
            return pack([name_of(cls), state, extra])
    return pack([name_of(cls), state])


def _unpack_dataclass(data: bytes) -> Any:
    name, state, *extra = unpack(data)
    cls: Any = find_class(name)
    if cls is None or not hasattr(cls, "__dataclass_fields__"):
        return state
    plan = _plan_of(cls)
    value: Any = object.__new__(cls)
    try:
        for field in plan.fields:
            object.__setattr__(value, field, state[field])
    except KeyError:
        for field, item in _fit(name, plan, state).items():
            object.__setattr__(value, field, item)
    if extra:
        _restore_extra(value, plan, extra[0])
    return value


def _fit(name: str, plan: _Plan, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state of another version of the class, made to fit this one."""
    fitting = {key: item for key, item in state.items() if key in plan.names}
    for key in plan.names - state.keys():
        field = plan.fields[key]
        if field.default is not dataclasses.MISSING:
            fitting[key] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            fitting[key] = field.default_factory()
        elif field.init:
            raise _missing(name, key)
    return fitting


def _missing(name: object, field: str) -> UnreadableValueError:
    return UnreadableValueError(
        f"a stored {name} has no {field!r}: it was written by another version of the class; give"
        " the field a default"
    )


def _restore_extra(value: Any, plan: _Plan, extra: dict[str, Any]) -> None:
    held: dict[str, Any] | None = getattr(value, "__dict__", None)
    for name, item in extra.items():
        if name in plan.slots:
            object.__setattr__(value, name, item)
        elif held is not None and name not in plan.names:
            held[name] = item


# Pydantic models


def _pack_model(value: Any) -> bytes:
    """The exact state; where a field's type has no encoding, JSON, if that loses nothing."""
    cls = cast("Any", type(value))
    name = name_of_model(cls)
    exact: dict[str, Any] = dict(value.__getstate__())
    exact[_FIELDS_SET] = sorted(exact[_FIELDS_SET])
    fields = _model_fields(cls)
    if exact["__dict__"].keys() != fields:  # it remembers a cached property
        exact["__dict__"] = {k: v for k, v in exact["__dict__"].items() if k in fields}
    try:
        return pack([name, "state", exact])
    except UnsupportedValueError:
        text: str = value.model_dump_json(round_trip=True)
        if cls.model_validate_json(text) != value:
            raise
        return pack([name, "json", text])


def _unpack_model(data: bytes) -> Any:
    name, form, content = unpack(data)
    found = find_type(name)
    cls = cast("Any", found) if isinstance(found, type) and is_model(found) else None
    if form == "json":
        return json.loads(content) if cls is None else cls.model_validate_json(content)
    state: dict[str, Any] = content["__dict__"]
    if cls is None:
        return state
    content[_FIELDS_SET] = set(content[_FIELDS_SET])
    if state.keys() != _model_fields(cls):
        content["__dict__"] = _fit_model(name, cls.model_fields, state)
    value = cls.__new__(cls)
    value.__setstate__(content)
    return value


@functools.lru_cache(maxsize=4096)  # pydantic's own answer takes a microsecond
def _model_fields(cls: Any) -> frozenset[str]:
    return frozenset(cls.model_fields)


def _fit_model(name: object, fields: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    fitting = {key: item for key, item in state.items() if key in fields}
    for key in _absent(fields, state):
        if fields[key].is_required():
            raise _missing(name, key)
        fitting[key] = fields[key].get_default(call_default_factory=True)
    return fitting


def _absent(fields: Iterable[str], state: Mapping[str, Any]) -> list[str]:
    return [key for key in fields if key not in state]
