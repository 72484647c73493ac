"""Who a client is: its address, and what it may say about the client behind it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_heads import HeaderBlock


class Peer:
    """The other end of a client's connection."""

    __slots__ = ("_chain", "_client", "_is_trusted")

    def __init__(self, transport: asyncio.BaseTransport, front: HttpFront) -> None:
        name = transport.get_extra_info("peername")
        self._client: tuple[str, int] | None = None
        if isinstance(name, tuple):  # a Unix socket's peer has no address
            host, port = cast("tuple[Any, ...]", name)[:2]
            self._client = (str(host), int(port))
        address = self._client[0] if self._client is not None else None
        self._is_trusted = front.trusts(address)
        self._chain = (address or "unknown").encode()

    def introduce(self, headers: HeaderBlock) -> None:
        """Add to `headers` who the client is; what a stranger says about that is not passed on."""
        told = headers.forwarded if self._is_trusted else {}
        before = told.get(b"x-forwarded-for")
        chain = self._chain if before is None else before + b", " + self._chain
        is_tls = told.get(b"x-forwarded-proto", b"").lower() == b"https"
        nearest = before.rsplit(b",", 1)[-1].strip().decode("latin-1") if before else ""
        headers.client = (nearest, 0) if nearest else self._client
        headers.scheme = "https" if is_tls else "http"
        headers.headers.append((b"x-forwarded-for", chain))
        headers.headers.append((b"x-forwarded-proto", headers.scheme.encode()))
        host = told.get(b"x-forwarded-host", headers.host)
        if host is not None:
            headers.headers.append((b"x-forwarded-host", host))
        if headers.request_id:
            # The last header, where it is one: instances look there.
            headers.headers.append((b"x-request-id", headers.request_id))
