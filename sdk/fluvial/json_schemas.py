"""JSON Schema of an annotation: what a payload that comes as JSON has to look like.

It is made for a reader that knows no user code (`fluvial.schema_checks`): a payload that cannot fit
is refused at the door. So it never demands more than `fluvial.shapes` does, and where it cannot
tell, it demands nothing: the code that takes the payload looks again.
"""

from __future__ import annotations

import collections.abc
import copy
import dataclasses
import functools
import inspect
import json
import logging
import types
import typing
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import Any, Final, Literal, Union, cast

from fluvial.classes import is_model, is_named_tuple
from fluvial.json_scalars import scalar_of
from fluvial.model_schemas import schema_of_model
from fluvial.serializers import deserializer_of
from fluvial.shaped_classes import hints_of_fields, parameters_of
from fluvial.type_hints import alias_of, bare

Schema = dict[str, Any]

MAX_SCHEMA_BYTES: Final = 8 * 1024  # as JSON; it stands in the log with every opening
_MAX_DEPTH: Final = 32
_JSON_TYPES: Final[dict[Any, list[str]]] = {
    bool: ["boolean"],
    int: ["integer"],
    float: ["number"],
    complex: ["number", "string"],
    Decimal: ["number", "string"],
    Fraction: ["integer", "string"],
    timedelta: ["number", "string", "boolean"],
    range: ["array"],
    list: ["array"],
    tuple: ["array"],
    set: ["array"],
    frozenset: ["array"],
    collections.deque: ["array"],
    dict: ["object"],
    collections.OrderedDict: ["object"],
    collections.defaultdict: ["object"],
    collections.Counter: ["object"],
    type(None): ["null"],
}

logger = logging.getLogger(__name__)


def payload_schema(annotation: Any) -> Schema | None:
    """Return the schema of an annotation; None: anything goes, or nothing can be said of it."""
    try:
        made = _cached_schema(annotation)
    except TypeError:  # not hashable
        made = _bounded_schema(annotation)
    return copy.deepcopy(made)


@functools.lru_cache(maxsize=1024)
def _cached_schema(annotation: Any) -> Schema | None:
    return _bounded_schema(annotation)


def _bounded_schema(annotation: Any) -> Schema | None:
    try:
        schema = _schema(annotation, 0)
        size = len(json.dumps(schema))
    except Exception as error:  # annotations and models run the user's code
        logger.debug("no schema of %r", annotation, exc_info=error)
        return None
    return schema if schema and size <= MAX_SCHEMA_BYTES else None


def _schema(annotation: Any, depth: int) -> Schema:
    """Return a schema; an empty one demands nothing."""
    annotation = bare(annotation)
    if annotation is None or annotation is type(None):
        return {"type": "null"} if depth else {}
    if annotation is Any or annotation is object or depth > _MAX_DEPTH or alias_of(annotation):
        return {}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Union or origin is types.UnionType:
        return _any_of([_schema(member, depth + 1) for member in arguments])
    if origin is Literal:
        return _choices([c.value if isinstance(c, Enum) else c for c in arguments])
    if isinstance(origin, type):
        return _generic(origin, arguments, depth)
    return _class(annotation, (), depth) if isinstance(annotation, type) else {}


def _any_of(members: list[Schema]) -> Schema:
    return {"anyOf": members} if all(members) else {}


def _choices(values: list[Any]) -> Schema:
    is_plain = all(type(v) in {str, int, float, bool, type(None)} for v in values)
    return {"enum": values} if is_plain else {}


def _generic(origin: Any, arguments: tuple[Any, ...], depth: int) -> Schema:
    if not arguments or _has_fields(origin):
        return _class(origin, arguments, depth)
    if issubclass(origin, tuple):
        return _tuple(arguments, depth)
    if issubclass(origin, collections.Counter):
        return {"type": "object"}
    if issubclass(origin, collections.abc.Mapping) and len(arguments) == 2:
        return {"type": "object", "additionalProperties": _schema(arguments[1], depth + 1)}
    if issubclass(origin, collections.abc.Iterable) and len(arguments) == 1:
        return {"type": "array", "items": _schema(arguments[0], depth + 1)}
    return {}


def _tuple(arguments: tuple[Any, ...], depth: int) -> Schema:
    if len(arguments) == 2 and arguments[1] is ...:
        return {"type": "array", "items": _schema(arguments[0], depth + 1)}
    if any(getattr(a, "__unpacked__", False) or typing.get_origin(a) for a in arguments):
        return {"type": "array"}
    items = [_schema(argument, depth + 1) for argument in arguments]
    count = len(items)
    return {"type": "array", "prefixItems": items, "minItems": count, "maxItems": count}


def _has_fields(cls: Any) -> bool:
    return (
        dataclasses.is_dataclass(cls)
        or is_model(cls)
        or typing.is_typeddict(cls)
        or is_named_tuple(cls)
    )


def _class(cls: Any, arguments: tuple[Any, ...], depth: int) -> Schema:
    if deserializer_of(cls) is not None:
        return {}
    if is_model(cls):
        return schema_of_model(cls)
    if dataclasses.is_dataclass(cls) or typing.is_typeddict(cls):
        return _fields(cls, arguments, depth)
    if is_named_tuple(cls):
        return {"type": ["array", "object"]}
    if issubclass(cls, Enum):
        return _enumeration(cls)
    if scalar_of(cls) is None:
        return {}
    kinds = _JSON_TYPES.get(cls, ["string"])
    return {"type": kinds[0] if len(kinds) == 1 else kinds}


def _fields(cls: Any, arguments: tuple[Any, ...], depth: int) -> Schema:
    known, required = parameters_of(cls)
    hints = hints_of_fields(cls, arguments)
    schema: Schema = {"type": "object", "required": list(required)}
    if known:
        schema["properties"] = {name: _schema_of_hint(hints, name, depth) for name in known}
        schema["additionalProperties"] = False
    return schema


def _schema_of_hint(hints: dict[str, Any], name: str, depth: int) -> Schema:
    if name not in hints:
        return {}
    hint = hints[name]
    return {"type": "null"} if hint is None else _schema(hint, depth + 1)


def _enumeration(cls: type[Enum]) -> Schema:
    if inspect.getattr_static(cls, "_missing_") is not inspect.getattr_static(Enum, "_missing_"):
        return {}  # the user's code decides what is a member
    return _choices([*(member.value for member in cls), *cast("Any", cls).__members__])
