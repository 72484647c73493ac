"""The control API's application: operations to routes, and every failure to problem+json.

Order of checks, so that a stranger learns nothing: path, method, token, scope, and only then
parameters and body. A handler's `FluvialError` becomes its problem; anything else is a defect: it
is logged with its traceback and told as a plain 500.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fluvial.errors import FluvialError
from fluvial_gateway.auth import Principal, Tokens
from fluvial_gateway.control.auditing import AuditLine
from fluvial_gateway.control.openapi import document
from fluvial_gateway.control.operations import DONE, Operation
from fluvial_gateway.control.reading import read_call
from fluvial_gateway.control.streaming import GeneratedResponse
from fluvial_gateway.problems import (
    MEDIA_TYPE,
    Problem,
    ProblemError,
    internal_problem,
    problem_of,
)

_LOG = logging.getLogger(__name__)
MAX_HEADER_BYTES: Final = 16 * 1024
_ANYBODY: Final = Principal("", "", frozenset())
_HTTP_CODES: Final[Mapping[int, str]] = {404: "not_found", 405: "method_not_allowed"}
_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
}

Endpoint = Callable[[Request], Awaitable[Response]]


def control_app(operations: Sequence[Operation], tokens: Tokens, *, version: str) -> Starlette:
    """Return the application that serves `operations` and their OpenAPI document."""
    described = document(operations, version=version)

    async def openapi(_: Request) -> Response:
        return JSONResponse(described)

    by_path: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation
    routes = [_route(path, methods, tokens) for path, methods in by_path.items()]
    routes.append(Route("/openapi.json", openapi))
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_exception})
    app.router.redirect_slashes = False  # a redirect would carry the token to wherever it points
    return app


def _route(path: str, methods: Mapping[str, Operation], tokens: Tokens) -> Route:
    # One route a path, so that a wrong method gets a 405 that names all the right ones.
    async def endpoint(request: Request) -> Response:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        return await _answer(request, operation, tokens)

    return Route(path, endpoint, methods=list(methods))


async def _answer(request: Request, operation: Operation, tokens: Tokens) -> Response:
    audit = AuditLine(operation, request.path_params)
    try:
        response = await _handled(request, operation, tokens, audit)
    except asyncio.CancelledError:
        audit.write()
        raise
    if isinstance(response, GeneratedResponse):
        response.at_end = audit.write
    else:
        audit.write()
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


async def _handled(
    request: Request, operation: Operation, tokens: Tokens, audit: AuditLine
) -> Response:
    try:
        _check_head(request)
        principal = _ANYBODY
        if operation.scopes:
            principal = audit.principal = await tokens.authenticate(
                request.headers.get("authorization")
            )
            principal.require(*operation.scopes)
        call = audit.call = await read_call(request, operation, principal)
        response = await operation.handler(call)
    except FluvialError as error:
        problem = problem_of(error)
        response = _told(request, operation, error, problem)
    except ClientDisconnect:
        # Nobody reads this answer; it only ends the request in order.
        problem = problem_of(ProblemError("request_timeout", "the client went away"))
        response = problem_response(problem)
    except Exception:  # noqa: BLE001 the boundary of a request
        _LOG.exception("an operation failed", extra={"operation": operation.name})
        problem = internal_problem()
        response = problem_response(problem)
    else:
        audit.outcome = DONE
        return response
    audit.outcome = str(problem.members["code"])
    return response


def _check_head(request: Request) -> None:
    # The server's own limit is about what has not arrived completely, so it may see more at once.
    size = sum(len(name) + len(value) for name, value in request.headers.raw)
    if size > MAX_HEADER_BYTES:
        raise ProblemError(
            "headers_too_large", f"the headers have {size} bytes, the limit is {MAX_HEADER_BYTES}"
        )


def _told(
    request: Request, operation: Operation, error: FluvialError, problem: Problem
) -> Response:
    if problem.status >= 500:
        _LOG.warning(
            "an operation was not carried out",
            extra={"operation": operation.name, "code": problem.members["code"]},
            exc_info=error if problem.status == 500 else None,
        )
    problem.members["instance"] = request.url.path
    return problem_response(problem)


def problem_response(problem: Problem) -> Response:
    """Return the HTTP response that tells `problem`."""
    return Response(problem.body(), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


async def _http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: unknown paths and methods."""
    if not isinstance(error, HTTPException):
        raise TypeError("registered for HTTPException alone") from error
    code = _HTTP_CODES.get(error.status_code, "invalid_request")
    detail = {
        "not_found": f"nothing is at {request.url.path}; /openapi.json lists what there is",
        "method_not_allowed": f"{request.method} is not for {request.url.path}",
    }.get(code, error.detail)
    response = problem_response(problem_of(ProblemError(code, detail, headers=error.headers)))
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response
