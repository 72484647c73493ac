"""JSON Schema of pydantic models, as lenient as the models themselves.

pydantic's own schema says what a model documents; what the model takes is more: texts for numbers,
other names for fields, whatever its validators make of what comes. Where a schema could refuse what
the model takes, it is loosened, or left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

Schema = dict[str, Any]

_OWN_CODE: Final = frozenset({"function-before", "function-wrap", "function-plain"})
_OTHER_NAMES: Final = ("populate_by_name", "validate_by_name", "coerce_numbers_to_str")
_KEPT: Final = ("minItems", "maxItems", "$ref")
_MAX_DEPTH: Final = 64


def schema_of_model(model: Any) -> Schema:
    """Return a schema that refuses nothing that the model takes; an empty one says nothing."""
    if not _is_as_documented(model.__pydantic_core_schema__, 0):
        return {}
    made: Schema = model.model_json_schema(mode="validation")
    loose = _loosened(made)
    definitions: dict[str, Any] = made.get("$defs", {})
    if definitions:
        loose["$defs"] = {name: _loosened(each) for name, each in definitions.items()}
    return loose


def _is_as_documented(core: Any, depth: int) -> bool:
    """Whether no code of the user's sees the values before their types are checked."""
    if depth > _MAX_DEPTH:
        return False
    if isinstance(core, Mapping):
        node = cast("Mapping[str, Any]", core)
        if node.get("type") in _OWN_CODE or "missing" in node:
            return False
        if any(node.get(name) is True for name in _OTHER_NAMES):
            return False
        if not isinstance(node.get("validation_alias", ""), str):
            return False
        return all(_is_as_documented(each, depth + 1) for each in node.values())
    if isinstance(core, list | tuple):
        return all(_is_as_documented(each, depth + 1) for each in cast("list[Any]", core))
    return True


def _loosened(schema: Any) -> Schema:
    if not isinstance(schema, dict):
        return {}
    given = cast("Schema", schema)
    loose: Schema = {name: given[name] for name in _KEPT if name in given}
    kind = given.get("type")
    if isinstance(kind, str):
        loose["type"] = _looser_type(kind, given)
    if kind == "object":
        _loosen_object(given, loose)
    if "items" in given:
        loose["items"] = _loosened(given["items"])
    if "prefixItems" in given:
        loose["prefixItems"] = [_loosened(each) for each in given["prefixItems"]]
    choices = given.get("anyOf") or given.get("oneOf")
    if choices:
        members = [_loosened(each) for each in choices]
        if all(members):
            loose["anyOf"] = members
    texts = given.get("enum") or ([given["const"]] if "const" in given else [])
    if texts and all(isinstance(each, str) for each in texts):
        loose["enum"] = list(texts)
    return loose


def _loosen_object(given: Schema, loose: Schema) -> None:
    properties: dict[str, Any] = given.get("properties", {})
    if properties:
        loose["properties"] = {name: _loosened(each) for name, each in properties.items()}
    if given.get("required"):
        loose["required"] = list(given["required"])
    further = given.get("additionalProperties")
    if further is False:
        loose["additionalProperties"] = False
    elif isinstance(further, dict):
        loose["additionalProperties"] = _loosened(further)


def _looser_type(kind: str, given: Schema) -> str | list[str]:
    if kind in {"integer", "number", "boolean"}:
        return ["number", "boolean", "string"]
    if kind == "string" and "format" in given:
        return ["string", "number"]  # a time may be a number of seconds
    return kind
