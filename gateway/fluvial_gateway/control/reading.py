"""Reading requests: parameters and bodies, checked against their operation's declaration."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from starlette.requests import Request

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Principal
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter
from fluvial_gateway.control.schemas import check
from fluvial_gateway.problems import ProblemError

# A JSON body is at most a few megabytes; who needs longer for it holds a slot for nothing.
_BODY_SECONDS: Final = 30.0
_INTEGER: Final = re.compile(r"-?[0-9]{1,18}")
_JSON_TYPES: Final = re.compile(r"application/(?:json|[\w.+-]+\+json)\s*(?:;.*)?", re.IGNORECASE)


async def read_call(request: Request, operation: Operation, principal: Principal) -> Call:
    """Return the request as its operation's handler wants it.

    Raises:
        InvalidRequestError, ProblemError: something does not fit the declaration.
    """
    path = _path(request, operation)
    query = _query(request, operation)
    headers = _headers(request, operation)
    body: Any = None
    if isinstance(operation.body, Body):
        body = await _json_body(request, operation.body)
    return Call(
        request=request, principal=principal, path=path, query=query, headers=headers, body=body
    )


def _path(request: Request, operation: Operation) -> Mapping[str, str]:
    values = {name: str(value) for name, value in request.path_params.items()}
    for parameter in operation.placed("path"):
        check(values[parameter.name], parameter.schema, parameter.name)
    return values


def _query(request: Request, operation: Operation) -> Mapping[str, Any]:
    declared = {parameter.name: parameter for parameter in operation.placed("query")}
    for name in request.query_params:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise InvalidRequestError(f"unknown query parameter {name!r}; known: {known}")
    return {
        name: _parameter(request.query_params.getlist(name), parameter)
        for name, parameter in declared.items()
    }


def _headers(request: Request, operation: Operation) -> Mapping[str, Any]:
    return {
        parameter.name: _parameter(request.headers.getlist(parameter.name), parameter)
        for parameter in operation.placed("header")
    }


def _parameter(values: list[str], parameter: Parameter) -> Any:
    where = f"{parameter.place} parameter {parameter.name}"
    if parameter.schema.get("type") == "array":
        check(values, parameter.schema, where)
        return values
    if not values:
        if parameter.required:
            raise InvalidRequestError(f"{where} is missing: {parameter.description}")
        return parameter.schema.get("default")
    if len(values) > 1:
        raise InvalidRequestError(f"{where} is given {len(values)} times")
    value = _convert(values[0], parameter.schema.get("type", "string"), where)
    check(value, parameter.schema, where)
    return value


def _convert(value: str, expected: str, where: str) -> str | int | bool:
    if expected == "integer":
        if not _INTEGER.fullmatch(value):
            raise InvalidRequestError(f"{where}: {value!r} is not an integer")
        return int(value)
    if expected == "boolean":
        if value not in ("true", "false"):
            raise InvalidRequestError(f"{where}: {value!r} is neither true nor false")
        return value == "true"
    return value


async def _json_body(request: Request, body: Body) -> Any:
    data = await _bytes(request, body.limit_bytes)
    if not data and body.optional:
        return {}
    media_type = request.headers.get("content-type", "application/json")
    if not _JSON_TYPES.fullmatch(media_type):
        raise ProblemError(
            "unsupported_media_type", f"the body is {media_type!r}, expected application/json"
        )
    value = parse_json(data)
    check(value, body.schema, "body")
    return value


async def _bytes(request: Request, limit_bytes: int) -> bytes:
    refuse_large(request, limit_bytes)
    chunks = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                chunks += chunk
                if len(chunks) > limit_bytes:
                    raise too_large(limit_bytes)
    except TimeoutError as error:
        raise ProblemError(
            "request_timeout", f"the body did not arrive within {_BODY_SECONDS:.0f} s"
        ) from error
    return bytes(chunks)


def refuse_large(request: Request, limit_bytes: int) -> None:
    """Refuse a body by its stated length, before any of it is read."""
    stated = request.headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated[:20]) > limit_bytes:
        raise too_large(limit_bytes)


def too_large(limit_bytes: int) -> ProblemError:
    return ProblemError(
        "too_large",
        f"the body is above the limit of {limit_bytes} bytes",
        extra={"limit_bytes": limit_bytes},
    )


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8, as RFC 8259 has it (no NaN, no Infinity).

    Raises:
        ProblemError: it is not that; the message says where.
    """
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)
        # "\\ud800" is JSON but no text: nothing behind this point could encode it.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ProblemError("invalid_json", "the body is nested too deeply") from error
    except ValueError as error:
        raise ProblemError("invalid_json", f"the body is not JSON: {error}") from error
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
