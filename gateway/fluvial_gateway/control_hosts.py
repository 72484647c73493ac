"""Which Host headers the control plane answers while it listens on loopback.

A web page can make its own name point at 127.0.0.1 and then, as far as a browser is concerned, is
of one origin with whatever listens there. Such a request carries the page's name as its Host. So a
listener on loopback answers to addresses, to `localhost` and to the platform's own domain, and to
nothing else. One that was put on a network on purpose has names that only its operator knows.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, cast

from fluvial_gateway.hosts import host_name
from fluvial_gateway.problems import MEDIA_TYPE, ProblemError, problem_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class LoopbackHosts:
    """Passes on what was meant for this machine; answers 421 to the rest."""

    def __init__(self, app: ASGIApp, *, domain: str) -> None:
        self._app = app
        self._names = ("localhost", domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or all(map(self._is_ours, _hosts(scope))):
            await self._app(scope, receive, send)
            return
        problem = problem_of(
            ProblemError("unknown_host", "the control plane listens on loopback: use `localhost`")
        )
        headers = [(b"content-type", MEDIA_TYPE.encode()), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": problem.status, "headers": headers})
        await send({"type": "http.response.body", "body": problem.body()})

    def _is_ours(self, host: bytes) -> bool:
        name = host_name(host)
        if name is None:
            return False
        return _is_address(name) or any(
            name == ours or name.endswith(f".{ours}") for ours in self._names
        )


def listens_on_loopback(listener: socket.socket) -> bool:
    """Return whether only this machine can reach `listener`."""
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return True  # a Unix socket
    host = str(cast("tuple[object, ...]", name)[0])
    return ipaddress.ip_address(host).is_loopback


def _hosts(scope: Scope) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == b"host"]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
