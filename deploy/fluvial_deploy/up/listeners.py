"""The sockets that the supervisor binds and the programs inherit."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Final

from fluvial.errors import FluvialError
from fluvial_deploy.up.settings import Address

_BACKLOG: Final = 2048  # bursts at a cold start wait here; the kernel caps it at somaxconn
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ListenError(FluvialError):
    """An address cannot be listened on; the message names it and the option."""

    code = "address_unusable"

    def __init__(self, address: Address, error: OSError) -> None:
        super().__init__(f"{address.option} {address}: {_reason(address, error)}")
        self.is_in_use = error.errno == errno.EADDRINUSE


def listen_tcp(address: Address) -> socket.socket:
    """Return a socket that listens on `address`.

    Raises:
        ListenError: the address is in use, unknown or not allowed.
    """
    try:
        family, _, _, _, resolved = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(address, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(resolved)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ListenError(address, error) from error
    listener.setblocking(False)
    return listener


def listen_unix(path: Path) -> socket.socket:
    """Return a socket that listens on `path`; what an earlier `up` left there is replaced."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(_BACKLOG)
    listener.setblocking(False)
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this machine reaches a TCP listener."""
    bound, port = listener.getsockname()[:2]
    host = _EVERYWHERE.get(bound, str(bound))
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _reason(address: Address, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {address.port} is in use by another program: "
            f"choose another with {address.option} HOST:PORT"
        )
    if error.errno == errno.EACCES:
        return "listening there is not allowed: ports below 1024 need privileges"
    return f"{error.strerror}: choose another with {address.option} HOST:PORT"
