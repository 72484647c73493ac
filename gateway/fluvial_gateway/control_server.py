"""The control-plane listener: uvicorn with Starlette, and a stop that ends what waits.

h11 and not httptools: this listener is not hot, and h11 bounds the head of a request by itself.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import uvicorn
from starlette.applications import Starlette

from fluvial_gateway.control_hosts import LoopbackHosts, listens_on_loopback
from fluvial_gateway.data_plane import EventServer
from fluvial_gateway.waits import LongWaits

_MAX_HEAD_BYTES: Final = 32 * 1024
_MAX_CONNECTIONS: Final = 1024
_KEEP_ALIVE_SECONDS: Final = 30


class ControlServer:
    """Serves the control API on an inherited listening socket until it is drained."""

    def __init__(
        self,
        app: Starlette,
        waits: LongWaits,
        *,
        listener: socket.socket,
        domain: str = "localhost",
    ) -> None:
        self._waits = waits
        self._listener = listener
        config = uvicorn.Config(
            LoopbackHosts(app, domain=domain) if listens_on_loopback(listener) else app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            date_header=False,
            access_log=False,
            log_config=None,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
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
        2. End what waits: followers' streams end in order, waiting clients get an answer.
        3. After `seconds`, cancel what is left.
        4. `serve` returns.
        """
        self._server.stop_accepting()
        state = self._server.server_state
        for connection in list(state.connections):
            connection.shutdown()
        self._waits.close()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=seconds)
        for task in list(state.tasks):
            task.cancel()
        self._server.finish()
