"""One calling convention for all: whatever a deployment's HTTP app is, here it becomes ASGI."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final, cast

from fluvial_invoker.instance.asgi import AsgiApp, Receive, Send
from fluvial_invoker.instance.handlers import asgi_from_handler
from fluvial_invoker.instance.loading import LoadedApp
from fluvial_invoker.instance.metering import MeteredExecutor
from fluvial_invoker.instance.wsgi import asgi_from_wsgi

_NO_APP: Final = b"this deployment has no HTTP function\n"


def asgi_app(app: LoadedApp | None, executor: MeteredExecutor) -> AsgiApp:
    """Return `app` as an ASGI app; code that blocks runs in `executor`."""
    if app is None:
        return no_app
    match app.interface:
        case "asgi":
            return cast("AsgiApp", app.call)
        case "wsgi":
            return asgi_from_wsgi(app.call, executor)
        case "handler":
            return asgi_from_handler(app.call, executor, is_async=app.is_async)


async def no_app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    """Answer for a deployment that only has workflows."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": _NO_APP})
