"""WSGI apps, through a2wsgi over the ASGI path, in a bounded pool of threads.

a2wsgi's thread waits for its events to be taken, so two things must never happen while it runs: the
task is cancelled (see `ThreadedInvocation`), or `send` raises (kept from it here).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final

from a2wsgi import WSGIMiddleware

from fluvial_invoker.instance.asgi import AsgiApp, Message, Receive, Send
from fluvial_invoker.instance.thread_metering import MeteredExecutor

SOCKET: Final = "fluvial.socket"  # in the scope of a WebSocket's handshake: what the app may use


def asgi_from_wsgi(app: Callable[..., Any], executor: MeteredExecutor) -> AsgiApp:
    """Return an ASGI app that runs `app` in `executor`."""
    middleware: Any = WSGIMiddleware(_with_more_environment(app), workers=1)
    middleware.executor.shutdown(wait=False)  # never used: ours meters, and is shared
    middleware.executor = executor

    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        failures: list[Exception] = []

        async def send_safely(message: Message) -> None:
            if failures:
                return
            try:
                await send(message)
            except Exception as error:  # noqa: BLE001 - raised below, when the thread is done
                failures.append(error)

        await middleware(scope, receive, send_safely)
        if failures:
            raise failures[0]

    return call


def _with_more_environment(app: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the app that its input ends by itself (a chunked body, which has no length, is else
    taken for none), and where a WebSocket's socket is: by the name that werkzeug gives it."""

    def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        environ["wsgi.input_terminated"] = True
        if SOCKET in environ["asgi.scope"]:
            environ["werkzeug.socket"] = environ["asgi.scope"][SOCKET]
        return app(environ, start_response)

    return call
