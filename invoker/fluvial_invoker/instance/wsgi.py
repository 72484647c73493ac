"""WSGI apps, through a2wsgi over the ASGI path, in a bounded pool of threads.

a2wsgi's thread waits for its events to be taken, so two things must never happen while it runs: the
task is cancelled (see `ThreadedInvocation`), or `send` raises (kept from it here).

Nothing stops a thread, but two places can tell it that its client has left: a body that was cut off
is an error and no end, and a response that nobody reads is not produced any further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Final

from a2wsgi import WSGIMiddleware

from fluvial_invoker.instance.asgi import AsgiApp, Message, Receive, Send
from fluvial_invoker.instance.credit import ClientGoneError
from fluvial_invoker.instance.metering import current
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

        async def receive_whole() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and current.get().is_stopped():
                raise ClientGoneError("the client went away while it sent the body")
            return message

        await middleware(scope, receive_whole, send_safely)
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
        response: object = app(environ, start_response)
        if type(response) in (list, tuple):
            return response
        return _ResponseBody(response)

    return call


class _ResponseBody:
    """What an app returned, iterated over as long as somebody reads it; then it is closed."""

    def __init__(self, iterable: Any) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[bytes]:
        invocation = current.get()
        for chunk in self._iterable:
            yield chunk
            if invocation.is_stopped():
                raise ClientGoneError("the client is gone")

    def close(self) -> None:
        """End the app's iterable: a generator finds a GeneratorExit where it waits."""
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()
