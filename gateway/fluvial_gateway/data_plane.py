"""The data-plane listener: uvicorn's server with our protocol class.

uvicorn's own main loop wakes ten times a second, and so does its shutdown; ours wait for events.
Signals belong to the program and not to one of its two listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, cast

import uvicorn

from fluvial_gateway.hosts import HostTable
from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_protocol import HttpConnection
from fluvial_gateway.router import Router
from fluvial_gateway.webhook_exchanges import WebhookDesk

BACKLOG = 2048  # connections that wait for accept; uvicorn's default


class DataPlane:
    """Serves HTTP clients on an inherited listening socket until it is drained."""

    def __init__(
        self,
        router: Router,
        hosts: HostTable,
        *,
        listener: socket.socket,
        limits: HttpLimits | None = None,
        webhooks: WebhookDesk | None = None,
    ) -> None:
        self.front = HttpFront(router, hosts, limits, webhooks=webhooks)
        self._listener = listener
        config = uvicorn.Config(
            cast("Any", self.front),  # not an ASGI app: our protocol class is its only user
            http=UvicornHttpConnection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            access_log=False,
            log_config=None,
            backlog=BACKLOG,
        )
        self._server = EventServer(config)

    @property
    def started(self) -> asyncio.Event:
        """Set once connections are accepted."""
        return self._server.accepting

    async def serve(self) -> None:
        """Accept connections until `drain`."""
        await self._server.serve([self._listener])

    async def drain(self, seconds: float) -> None:
        """Stop.

        1. Refuse: no connection is accepted any more; idle ones are closed.
        2. Drain: requests under way finish; their answers say `connection: close`.
        3. After `seconds`, close what is left.
        4. `serve` returns.
        """
        self._server.stop_accepting()
        await self.front.drain(seconds)
        self._server.finish()


class EventServer(uvicorn.Server):
    """uvicorn's server without its polling loops and signal handlers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()
        self._finished = asyncio.Event()

    def stop_accepting(self) -> None:
        """Close the listening sockets."""
        for server in getattr(self, "servers", ()):
            server.close()

    def finish(self) -> None:
        """Let `serve` return."""
        self._finished.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave the signals to the program."""
        yield

    async def main_loop(self) -> None:
        self.accepting.set()
        await self._finished.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.stop_accepting()


class UvicornHttpConnection(HttpConnection):
    """The same for uvicorn's `http=` setting; the configuration's `app` is the `HttpFront`."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: object,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        front = config.loaded_app
        if not isinstance(front, HttpFront):
            raise TypeError(f"the app of this listener must be an HttpFront, not {front!r}")
        super().__init__(front)
