"""Who a client is: its address, and what it may say about the client behind it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_heads import HeaderBlock


class Peer:
    """The other end of a client's connection."""

    __slots__ = ("_chain", "_client", "_front", "_is_trusted")

    def __init__(self, transport: asyncio.BaseTransport, front: HttpFront) -> None:
        name = transport.get_extra_info("peername")
        self._client: tuple[str, int] | None = None
        if isinstance(name, tuple):  # a Unix socket's peer has no address
            host, port = cast("tuple[Any, ...]", name)[:2]
            self._client = (str(host), int(port))
        address = self._client[0] if self._client is not None else None
        self._front = front
        self._is_trusted = front.trusts(address)
        self._chain = (address or "unknown").encode()

    def introduce(self, headers: HeaderBlock) -> None:
        """Add to `headers` who the client is; what a stranger says about that is not passed on."""
        told = headers.forwarded if self._is_trusted else {}
        before = told.get(b"x-forwarded-for")
        chain = self._chain if before is None else before + b", " + self._chain
        is_tls = told.get(b"x-forwarded-proto", b"").lower() == b"https"
        behind = self._client_behind(before) if before else ""
        headers.client = (behind, 0) if behind else self._client
        headers.scheme = "https" if is_tls else "http"
        headers.headers.append((b"x-forwarded-for", chain))
        headers.headers.append((b"x-forwarded-proto", headers.scheme.encode()))
        host = told.get(b"x-forwarded-host", headers.host)
        if host is not None:
            headers.headers.append((b"x-forwarded-host", host))
        if headers.request_id:
            # The last header, where it is one: instances look there.
            headers.headers.append((b"x-request-id", headers.request_id))

    def _client_behind(self, chain: bytes) -> str:
        """Return the last address in `chain` that is no trusted proxy's.

        Each proxy has added the address that it saw: what stands before a stranger's may be made
        up.
        """
        addresses = [each.strip() for each in chain.decode("latin-1").split(",")]
        strangers = [each for each in addresses if not self._front.trusts(each)]
        return (strangers or addresses[:1])[-1]
