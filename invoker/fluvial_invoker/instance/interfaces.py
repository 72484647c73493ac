"""One calling convention for all: whatever a deployment's HTTP app is, here it becomes ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final, cast

from fluvial.manifest import OnDisconnect
from fluvial_invoker.instance.asgi import AsgiApp, HttpInvocation, Receive, Send
from fluvial_invoker.instance.framework_functions import wsgi_from_function
from fluvial_invoker.instance.function_urls import asgi_from_lambda
from fluvial_invoker.instance.handlers import asgi_from_handler
from fluvial_invoker.instance.invocations import Link
from fluvial_invoker.instance.loading import Interface, LoadedApp
from fluvial_invoker.instance.notified import NotifiedInvocation
from fluvial_invoker.instance.request_handlers import asgi_from_request_handler
from fluvial_invoker.instance.thread_metering import MeteredExecutor
from fluvial_invoker.instance.threaded import ThreadedInvocation
from fluvial_invoker.instance.websockets import WebSocketInvocation
from fluvial_invoker.instance.wsgi import asgi_from_wsgi
from fluvial_invoker.instance.wsgi_websockets import SocketInvocation

WEBSOCKETS: Final = frozenset({"ws", "wss"})  # schemes of requests that are handshakes
_NO_APP: Final = b"this deployment has no HTTP function\n"
_NO_WEBSOCKETS: Final = b"a handler serves no WebSockets\n"


def asgi_app(app: LoadedApp | None, executor: MeteredExecutor, *, memory_bytes: int = 0) -> AsgiApp:
    """Return `app` as an ASGI app; code that blocks runs in `executor`.

    Args:
        memory_bytes: what an instance may use, for those who ask.
    """
    if app is None:
        return no_app
    match app.interface:
        case "asgi":
            return cast("AsgiApp", app.call)
        case "wsgi":
            return asgi_from_wsgi(app.call, executor)
        case "handler":
            return asgi_from_handler(app.call, executor, is_async=app.is_async)
        case "http.server":
            return asgi_from_request_handler(app.call, executor)
        case "functions-framework" | "cloudevent":
            takes_events = app.interface == "cloudevent"
            return asgi_from_wsgi(wsgi_from_function(app.call, takes_events=takes_events), executor)
        case "lambda":
            return asgi_from_lambda(
                app.call, executor, is_async=app.is_async, memory_bytes=memory_bytes
            )


async def no_app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer for a deployment that only has workflows."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NO_APP})


def invocation_class(app: LoadedApp | None, on_disconnect: OnDisconnect) -> type[HttpInvocation]:
    """Return what a request of `app` becomes."""
    if app is not None and not app.is_async:
        return ThreadedInvocation
    return NotifiedInvocation if on_disconnect == "notify" else HttpInvocation


def websocket_invocation(
    header: list[Any],
    link: Link,
    *,
    app: AsgiApp,
    interface: Interface | None,
    state: dict[str, Any] | None,
    loop: asyncio.AbstractEventLoop,
) -> HttpInvocation:
    """Return the invocation that a WebSocket's handshake asks for; `app` as `asgi_app` made it."""
    if interface == "wsgi":
        return SocketInvocation(header, link, app=app, loop=loop)
    if interface != "asgi":
        app = refuse_websocket
    return WebSocketInvocation(header, link, app=app, state=state, loop=loop)


async def refuse_websocket(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer a handshake for a deployment that cannot serve it."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "websocket.http.response.start", "status": 501, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": _NO_WEBSOCKETS})
