"""The OpenAPI 3.1 document, made from the same table as the routes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from fluvial_gateway.control.operations import Body, Operation, Parameter, Upload
from fluvial_gateway.control.schemas import Schema
from fluvial_gateway.problems import MEDIA_TYPE

_CONVERTOR: Final = re.compile(r"\{(\w+):\w+\}")
_PROBLEM: Final[Schema] = {
    "type": "object",
    "description": "RFC 9457. `code` is stable; further members depend on it.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "instance": {"type": "string"},
    },
}


def document(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """Return the document that describes `operations`."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _CONVERTOR.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fluvial control API",
            "version": version,
            "description": "Errors are problem+json. Times are RFC 3339 in UTC.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": dict(_PROBLEM)},
            "responses": {
                "Problem": {
                    "description": "The operation was refused or failed.",
                    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": _description(operation),
        "parameters": [_parameter(parameter) for parameter in operation.parameters],
        "responses": _responses(operation),
        "security": [{"token": []}] if operation.scopes else [],
    }
    if operation.body is not None:
        described["requestBody"] = _body(operation.body)
    if operation.scopes:
        described["x-fluvial-scopes"] = [scope.value for scope in operation.scopes]
    return described


def _description(operation: Operation) -> str:
    scopes = " or ".join(f"`{scope}`" for scope in operation.scopes)
    needs = f"Needs the scope {scopes}." if scopes else "Public."
    codes = ", ".join(f"`{code}`" for code in operation.problems)
    refusals = f"Refuses with {codes}." if codes else ""
    return " ".join(part for part in (operation.description, needs, refusals) if part)


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required or parameter.place == "path",
        "description": parameter.description,
        "schema": _described(parameter.schema),
    }


def _body(body: Body | Upload) -> dict[str, Any]:
    if isinstance(body, Upload):
        binary: dict[str, Any] = {"type": "string", "format": "binary"}
        return {"required": True, "content": {body.media_type: {"schema": binary}}}
    return {
        "required": not body.optional,
        "content": {"application/json": {"schema": _described(body.schema)}},
    }


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, reply in operation.replies.items():
        described: dict[str, Any] = {"description": reply.description}
        if reply.schema is not None:
            described["content"] = {reply.media_type: {"schema": _described(reply.schema)}}
        responses[str(status)] = described
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    return responses


def _described(schema: Schema) -> dict[str, Any]:
    """Return a schema as the document has it: a pattern there may match anywhere, ours matches the
    whole text."""
    return {name: _keyword(name, value) for name, value in schema.items()}


def _keyword(name: str, value: Any) -> Any:
    if name == "pattern":
        return f"^(?:{value})$"
    if name == "properties":
        members = cast("Mapping[str, Schema]", value)
        return {member: _described(each) for member, each in members.items()}
    if isinstance(value, Mapping):
        return _described(cast("Schema", value))
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_described(cast("Schema", i)) if isinstance(i, Mapping) else i for i in items]
    return value
