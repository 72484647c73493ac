"""Plain handlers: `def handler(request) -> response`, sync (in a thread) or async.

What a handler may return:

    Response(...)              status, headers and body
    str, bytes                 a body: text/plain, application/octet-stream
    dict, list                 a JSON body
    (status, body)             any of the bodies above with a status
    (status, body, headers)    … and headers
    None                       204
"""

from __future__ import annotations

import contextvars
import json
from collections.abc import Callable, MutableMapping
from concurrent.futures import Executor
from typing import Any, Final, cast

from fluvial.http import Request, Response
from fluvial_invoker.instance.asgi import AsgiApp, Receive, Send
from fluvial_invoker.instance.credit import ClientGoneError
from fluvial_invoker.instance.threads import run_in_thread

_TEXT: Final = "text/plain; charset=utf-8"
_BINARY: Final = "application/octet-stream"
_JSON: Final = "application/json"
_STATUS_AND_BODY: Final = 2
_STATUS_BODY_HEADERS: Final = 3


def asgi_from_handler(
    handler: Callable[..., Any], executor: Executor, *, is_async: bool
) -> AsgiApp:
    """Return an ASGI app that calls `handler`, in a thread unless it is async."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        request = _request(scope, await whole_body(receive))
        if is_async:
            result = await handler(request)
        else:
            context = contextvars.copy_context()
            result = await run_in_thread(executor, lambda: context.run(handler, request))
        status, headers, body = _encode(result)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return call


def _request(scope: MutableMapping[str, Any], body: bytes) -> Request:
    return Request(
        method=scope["method"],
        path=scope["path"],
        query_string=scope["query_string"].decode("latin-1"),
        raw_headers=scope["headers"],
        body=body,
    )


async def whole_body(receive: Receive) -> bytes:
    """Return a request's body when all of it is here.

    Raises:
        ClientGoneError: the client went away before the end.
    """
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client went away while it sent the body")
        chunks.append(message["body"])
        if not message["more_body"]:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _encode(result: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    response = _as_response(result)
    body, content_type = _encode_body(response.body)
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in response.headers.items()
    ]
    if content_type and not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", content_type.encode()))
    return response.status, headers, body


def _as_response(result: Any) -> Response:
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status=204)
    if isinstance(result, tuple):
        parts = cast("tuple[Any, ...]", result)
        if len(parts) == _STATUS_AND_BODY:
            return Response(parts[1], parts[0])
        if len(parts) == _STATUS_BODY_HEADERS:
            return Response(parts[1], parts[0], parts[2])
        raise TypeError(
            f"a handler returned a tuple of {len(parts)}, not (status, body[, headers])"
        )
    return Response(result)


def _encode_body(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes | bytearray | memoryview):
        raw = bytes(cast("bytes", body))
        return raw, _BINARY if raw else ""
    if isinstance(body, str):
        return body.encode(), _TEXT
    if isinstance(body, dict | list):
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(), _JSON
    raise TypeError(
        f"a handler returned a {type(body).__name__}; it may return a Response, str, bytes, dict, "
        "list, (status, body) or None"
    )
