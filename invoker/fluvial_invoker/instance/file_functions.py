"""Functions in files of their own (`api/*.py`): which one answers a request, and its first import.

A file is imported when its first request comes, on the loop's thread, as modules expect; that
request and its neighbours wait for it once. The lifespan of an ASGI app among them starts before
its first request. An import or a start-up that fails is a 500 of that request, and the next one
tries again.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from contextvars import Context
from typing import Any, Final
from urllib.parse import quote, unquote_plus

from fluvial.file_functions import Routes
from fluvial.interfaces import Interface
from fluvial.manifest import DeploymentSpec, OnDisconnect
from fluvial_invoker.instance.asgi import (
    AsgiApp,
    HttpInvocation,
    Receive,
    Send,
)
from fluvial_invoker.instance.interfaces import (
    WEBSOCKETS,
    asgi_app,
    invocation_class,
    websocket_invocation,
)
from fluvial_invoker.instance.invocations import Link
from fluvial_invoker.instance.lifespan import Lifespan
from fluvial_invoker.instance.loading import DeploymentError, LoadedApp, load_target
from fluvial_invoker.instance.thread_metering import MeteredExecutor

_NOT_FOUND: Final = b"no function of this deployment answers this path\n"
_TEXT: Final = [(b"content-type", b"text/plain; charset=utf-8")]


class FileFunctions:
    """The functions of one deployment by their paths."""

    def __init__(
        self,
        targets: Sequence[str],
        interface: Interface | None,
        executor: MeteredExecutor,
        *,
        memory_bytes: int,
        on_disconnect: OnDisconnect,
    ) -> None:
        self._on_disconnect: OnDisconnect = on_disconnect
        self._routes = Routes(targets)
        self._interface: Interface | None = interface
        self._executor = executor
        self._memory_bytes = memory_bytes
        self._loaded: dict[str, _FileFunction] = {}

    def invocation(
        self, header: list[Any], body: bytes, link: Link, loop: asyncio.AbstractEventLoop
    ) -> HttpInvocation:
        """Return the invocation that a REQUEST frame asks for."""
        app, interface, kind = self._choose(header[4])
        if header[7] in WEBSOCKETS:
            return websocket_invocation(
                header, link, app=app, interface=interface, state=None, loop=loop
            )
        return kind(header, body, link, app=app, state=None, loop=loop)

    async def stop(self, timeout_seconds: float) -> None:
        """Run the shutdown of all lifespans that have been started."""
        await asyncio.gather(
            *(function.stop(timeout_seconds) for function in self._loaded.values())
        )

    def _choose(self, request_target: bytes) -> tuple[AsgiApp, Interface, type[HttpInvocation]]:
        """Return the app that answers a path, how it is called, and as what it is run."""
        raw_path = request_target.partition(b"?")[0].decode("latin-1")
        found = self._routes.match(raw_path)
        if found is None:
            return _not_found, "asgi", HttpInvocation
        target, segments = found
        try:
            function = self._load(target)
        except BaseException as error:  # noqa: BLE001 - user code; raised again in its invocation
            return _failed(error), "asgi", HttpInvocation
        return function.answering(segments), function.interface, function.kind

    def _load(self, target: str) -> _FileFunction:
        function = self._loaded.get(target)
        if function is None:
            # Out of the request's context: what the module sets up outlives it.
            app: LoadedApp = Context().run(load_target, target, self._interface)
            called = asgi_app(app, self._executor, memory_bytes=self._memory_bytes)
            kind = invocation_class(app, self._on_disconnect)
            function = self._loaded[target] = _FileFunction(app, called, kind)
        return function


def file_functions(spec: DeploymentSpec, executor: MeteredExecutor) -> FileFunctions | None:
    """Return the functions of a deployment that has files instead of an app."""
    if not spec.files:
        return None
    return FileFunctions(
        spec.files,
        spec.interface,
        executor,
        memory_bytes=spec.instance.memory_bytes,
        on_disconnect=spec.instance.on_disconnect,
    )


class _FileFunction:
    """One imported file."""

    def __init__(self, app: LoadedApp, called: AsgiApp, kind: type[HttpInvocation]) -> None:
        self.kind = kind
        self.interface: Interface = app.interface
        self._app = called
        self._lifespan: Lifespan | None = None
        self._starting: asyncio.Task[None] | None = None

    def answering(self, segments: dict[str, str]) -> AsgiApp:
        """Return the app for one request whose path has these dynamic segments."""

        async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if self.interface == "asgi":
                lifespan = await self._started()
                if lifespan.is_supported:
                    scope["state"] = lifespan.state.copy()
            if segments:
                scope["path_params"] = dict(segments)
                scope["query_string"] = _with_segments(scope["query_string"], segments)
            await self._app(scope, receive, send)

        return call

    async def stop(self, timeout_seconds: float) -> None:
        if self._lifespan is not None:
            await self._lifespan.stop(timeout_seconds)

    async def _started(self) -> Lifespan:
        if self._lifespan is None or self._starting is None:
            loop = asyncio.get_running_loop()
            self._lifespan = Lifespan(self._app)
            # A task of the instance, not of the request that happens to be the first.
            self._starting = Context().run(loop.create_task, self._lifespan.start())
        lifespan, starting = self._lifespan, self._starting
        try:
            await asyncio.shield(starting)
        except DeploymentError:
            if self._starting is starting:
                self._starting = None  # the next request tries again
            raise
        return lifespan


def _with_segments(query: bytes, segments: dict[str, str]) -> bytes:
    """Return a query in which the path's segments stand, and nothing else by their names."""
    kept = [
        part
        for part in query.split(b"&")
        if part and unquote_plus(part.partition(b"=")[0].decode("latin-1")) not in segments
    ]
    kept += [f"{name}={quote(value, safe='')}".encode() for name, value in segments.items()]
    return b"&".join(kept)


async def _not_found(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    response = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{response}.start", "status": 404, "headers": _TEXT})
    await send({"type": f"{response}.body", "body": _NOT_FOUND})


def _failed(error: BaseException) -> AsgiApp:
    async def call(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        raise error

    return call
