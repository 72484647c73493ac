"""Lambda handlers, `def handler(event, context)`, as behind a function URL.

The event has payload format 2.0. A result with a `statusCode` is a response; any other is a JSON
body with status 200. A handler that raises, or returns what cannot be sent, is a 502, and its
traceback is in the app's log.
"""

from __future__ import annotations

import base64
import binascii
import contextvars
import json
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import parse_qsl

from fluvial.context import Invocation, context
from fluvial.ids import new_id
from fluvial_invoker.instance.asgi import AsgiApp, Receive, Send
from fluvial_invoker.instance.credit import ClientGoneError
from fluvial_invoker.instance.handlers import whole_body
from fluvial_invoker.instance.response_heads import HeaderPair
from fluvial_invoker.instance.threads import run_in_thread

_BAD_GATEWAY: Final = 502
_ERROR_BODY: Final = b"Internal Server Error"
_JSON: Final = b"application/json"
_FOREVER_MS: Final = 900_000  # what Lambda's longest invocation has
_TEXT_TYPES: Final = frozenset(
    {"application/json", "application/javascript", "application/xml", ""}
)


class FunctionUrlError(Exception):
    """What a handler returned is no response of payload format 2.0; the message says why."""


@dataclass(frozen=True, slots=True)
class LambdaContext:
    """The second argument of a Lambda handler."""

    function_name: str
    function_version: str
    invoked_function_arn: str
    memory_limit_in_mb: str
    aws_request_id: str
    log_group_name: str
    log_stream_name: str
    deadline_seconds: float | None  # of time.monotonic()
    identity: None = None
    client_context: None = None

    def get_remaining_time_in_millis(self) -> int:
        """Return how long the invocation may still take."""
        if self.deadline_seconds is None:
            return _FOREVER_MS
        return max(0, round((self.deadline_seconds - time.monotonic()) * 1000))


def asgi_from_lambda(
    handler: Callable[..., Any], executor: Executor, *, is_async: bool, memory_bytes: int
) -> AsgiApp:
    """Return an ASGI app that calls `handler(event, context)`, in a thread unless it is async."""

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = await whole_body(receive)
        invocation = context()
        event = make_event(scope, body, invocation)
        about = _context(invocation, memory_bytes)
        try:
            if is_async:
                result = await handler(event, about)
            else:
                copied = contextvars.copy_context()
                result = await run_in_thread(executor, lambda: copied.run(handler, event, about))
            await _answer(send, *make_response(result))
        except ClientGoneError:
            raise
        except Exception:
            await _answer(send, _BAD_GATEWAY, [], _ERROR_BODY)
            raise  # for the log, and the invocation's outcome

    return call


def make_event(
    scope: MutableMapping[str, Any], body: bytes, invocation: Invocation
) -> dict[str, Any]:
    """Return the event of payload format 2.0 for a request."""
    headers, cookies = _headers(scope["headers"])
    query = scope["query_string"].decode("latin-1")
    domain = headers.get("host", "").partition(":")[0]
    now = datetime.now(UTC)
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": scope["raw_path"].decode("latin-1"),
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "anonymous",
            "apiId": invocation.app,
            "domainName": domain,
            "domainPrefix": domain.partition(".")[0],
            "http": {
                "method": scope["method"],
                "path": scope["raw_path"].decode("latin-1"),
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": (scope.get("client") or ("",))[0],
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": invocation.id,
            "routeKey": "$default",
            "stage": "$default",
            "time": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "timeEpoch": int(now.timestamp() * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    if query:
        event["queryStringParameters"] = _parameters(query)
    if body:
        event["body"], event["isBase64Encoded"] = _text_body(body, headers)
    return event


def make_response(result: Any) -> tuple[int, list[HeaderPair], bytes]:
    """Return (status, headers, body) of what a handler returned.

    Raises:
        FunctionUrlError: it has a `statusCode`, but is no response.
        TypeError: it is not JSON.
    """
    if not isinstance(result, Mapping) or "statusCode" not in result:
        return 200, [(b"content-type", _JSON)], json.dumps(result).encode()
    response = cast("Mapping[str, Any]", result)
    headers = list(_header_pairs(response))
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", _JSON))
    headers += [(b"set-cookie", _field(cookie)) for cookie in response.get("cookies") or ()]
    return _status(response["statusCode"]), headers, _response_body(response)


def _headers(pairs: Any) -> tuple[dict[str, str], list[str]]:
    """Return (headers by lower-case name, cookies); several of one name are joined by commas."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [cookie.strip() for cookie in value.split(";") if cookie.strip()]
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers, cookies


def _parameters(query: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    return parameters


def _text_body(body: bytes, headers: Mapping[str, str]) -> tuple[str, bool]:
    """Return (the body as text, whether it is base64)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = kind in _TEXT_TYPES or kind.startswith("text/") or kind.endswith(("+json", "+xml"))
    if is_text and "content-encoding" not in headers:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass  # the header is wrong, or names another encoding: bytes are bytes
    return base64.b64encode(body).decode(), True


def _context(invocation: Invocation, memory_bytes: int) -> LambdaContext:
    return LambdaContext(
        function_name=invocation.app,
        function_version=invocation.deployment,
        invoked_function_arn=f"fluvial:{invocation.app}:{invocation.deployment}",
        memory_limit_in_mb=str(memory_bytes // 2**20),
        aws_request_id=invocation.id or new_id("inv"),
        log_group_name=invocation.app,
        log_stream_name=invocation.instance,
        deadline_seconds=invocation.deadline_seconds,
    )


def _header_pairs(response: Mapping[str, Any]) -> Iterator[HeaderPair]:
    several, single = _map(response, "multiValueHeaders"), _map(response, "headers")
    lower = {str(name).lower() for name in several}
    for name, value in single.items():
        if str(name).lower() not in lower:
            yield _field(name).lower(), _field(value)
    for name, values in several.items():
        for value in values:
            yield _field(name).lower(), _field(value)


def _map(response: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = response.get(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise FunctionUrlError(f"{key} must be a map, got {value!r}")
    return cast("Mapping[str, Any]", value)


def _field(value: Any) -> bytes:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.encode("utf-8")


def _status(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise FunctionUrlError(f"statusCode must be a number, got {value!r}") from None


def _response_body(response: Mapping[str, Any]) -> bytes:
    body: Any = response.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        if response.get("isBase64Encoded"):
            raise FunctionUrlError(f"a base64 body must be text, got a {type(body).__name__}")
        return json.dumps(body).encode()
    if not response.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise FunctionUrlError(f"isBase64Encoded, but the body is not base64: {error}") from error


async def _answer(send: Send, status: int, headers: list[HeaderPair], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
