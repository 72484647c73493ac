"""JSON Schema, as much of it as the control API needs: one value describes and checks a body.

The same `Schema` stands in the OpenAPI document and is what `check` enforces, so the document
cannot say something else than the code does. A failure names the path of the offending value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from fluvial.errors import InvalidRequestError

Schema = Mapping[str, Any]

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def obj(properties: Mapping[str, Schema], *, required: Sequence[str] = ()) -> Schema:
    """An object that has these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def array(items: Schema | None = None, **limits: int) -> Schema:
    return {"type": "array", "items": items or {}, **limits}


def text(description: str = "", **keywords: Any) -> Schema:
    schema: dict[str, Any] = {"type": "string", **keywords}
    if description:
        schema["description"] = description
    return schema


def integer(minimum: int, maximum: int, **keywords: Any) -> Schema:
    return {"type": "integer", "minimum": minimum, "maximum": maximum, **keywords}


def mapping(values: Schema, names: Schema, **limits: int) -> Schema:
    """An object whose members are named as the caller likes, within `names`."""
    return {
        "type": "object",
        "additionalProperties": values,
        "propertyNames": names,
        **limits,
    }


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def check(value: object, schema: Schema, where: str) -> None:
    """Raises:
    InvalidRequestError: `value` does not fit; the message begins with its path.
    """
    if "anyOf" in schema:
        _check_any(value, schema["anyOf"], where)
        return
    expected = schema.get("type")
    if expected is None:
        return
    _check_type(value, expected, where)
    if isinstance(value, dict):
        _check_object(cast("dict[str, object]", value), schema, where)
    elif isinstance(value, list):
        _check_array(cast("list[object]", value), schema, where)
    elif isinstance(value, str):
        _check_text(value, schema, where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, where)


def _check_any(value: object, choices: Sequence[Schema], where: str) -> None:
    # Of a list only what lists must be is of interest, and so on.
    fitting = [choice for choice in choices if _has_type(value, choice)]
    failures: list[str] = []
    for choice in fitting or choices:
        try:
            check(value, choice, where)
        except InvalidRequestError as error:
            failures.append(str(error))
        else:
            return
    raise InvalidRequestError("; or ".join(failures))


def _check_type(value: object, expected: str, where: str) -> None:
    if not _is(value, expected):
        raise InvalidRequestError(f"{where}: expected {expected}, got {_json_type(value)}")


def _has_type(value: object, schema: Schema) -> bool:
    return "type" not in schema or _is(value, schema["type"])


def _is(value: object, expected: str) -> bool:
    # In Python a bool is an int, in JSON it is not.
    return isinstance(value, _TYPES[expected]) and (
        expected == "boolean" or not isinstance(value, bool)
    )


def _json_type(value: object) -> str:
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in _TYPES.items() if isinstance(value, types)), "nothing")


def _check_object(value: dict[str, object], schema: Schema, where: str) -> None:
    properties = cast("dict[str, Schema]", schema.get("properties", {}))
    for name in schema.get("required", ()):
        if name not in value:
            raise InvalidRequestError(f"{where}: the member {name!r} is missing")
    most, least = schema.get("maxProperties"), schema.get("minProperties", 0)
    if len(value) < least or (most is not None and len(value) > most):
        raise InvalidRequestError(
            f"{where}: has {len(value)} members, expected {_range(least, most)} members"
        )
    names, others = schema.get("propertyNames"), schema.get("additionalProperties")
    for name, item in value.items():
        if names is not None:
            _check_text(name, names, f"{where}: the name {name[:40]!r}")
        if name in properties:
            check(item, properties[name], f"{where}.{name}")
        elif others is False:
            known = ", ".join(properties) or "none"
            raise InvalidRequestError(f"{where}: unknown member {name!r}; known: {known}")
        elif isinstance(others, Mapping):
            check(item, cast("Schema", others), f"{where}.{name}")


def _check_array(value: list[object], schema: Schema, where: str) -> None:
    low, high = schema.get("minItems", 0), schema.get("maxItems")
    if len(value) < low or (high is not None and len(value) > high):
        raise InvalidRequestError(
            f"{where}: has {len(value)} items, expected {_range(low, high)} items"
        )
    items = schema.get("items")
    if items:
        for index, item in enumerate(value):
            check(item, items, f"{where}[{index}]")


def _check_text(value: str, schema: Schema, where: str) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < low or (high is not None and len(value) > high):
        raise InvalidRequestError(
            f"{where}: has {len(value)} characters, expected {_range(low, high)} characters"
        )
    choices = schema.get("enum")
    if choices is not None and value not in choices:
        raise InvalidRequestError(f"{where}: {value!r} is not one of {', '.join(choices)}")
    pattern = schema.get("pattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        raise InvalidRequestError(f"{where}: {value!r} does not match {pattern}")


def _check_number(value: float, schema: Schema, where: str) -> None:
    low, high = schema.get("minimum"), schema.get("maximum")
    if (low is not None and value < low) or (high is not None and value > high):
        raise InvalidRequestError(f"{where}: is {value}, expected {_range(low, high)}")


def _range(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
