"""What all client connections of a data-plane listener share."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

from fluvial_gateway.deadlines import Deadlines, Expiring
from fluvial_gateway.hosts import HostTable
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_responses import DateHeader, HeadChecker
from fluvial_gateway.invocation_ids import InvocationIds
from fluvial_gateway.router import Router
from fluvial_gateway.webhook_exchanges import WebhookDesk


class ClientConnection(Expiring, Protocol):
    """A connection, as the listener sees it."""

    def shutdown(self) -> None:
        """Close when idle; else finish what is under way and close then."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...

    def __hash__(self) -> int: ...


class HttpFront:
    """Routes, limits, deadlines and the set of open connections."""

    def __init__(
        self,
        router: Router,
        hosts: HostTable,
        limits: HttpLimits | None = None,
        *,
        webhooks: WebhookDesk | None = None,
    ) -> None:
        self.router = router
        self.webhooks = webhooks  # None: their paths are nothing special
        self.hosts = hosts
        self.limits = limits or HttpLimits()
        self.deadlines = Deadlines(self.limits.resolution_seconds, router.clock)
        self.clock = router.clock
        self.heads = HeadChecker()
        self.date = DateHeader()
        self.ids = InvocationIds()
        self.draining = False
        self._trusted: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(network) for network in self.limits.trusted_peers
        )
        self._connections: set[ClientConnection] = set()
        self._all_closed = asyncio.Event()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def opened(self, connection: ClientConnection) -> bool:
        """Note a connection; return whether it is within the limit."""
        self._connections.add(connection)
        self._all_closed.clear()
        self.deadlines.watch(connection)
        return len(self._connections) <= self.limits.connections

    def closed(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self.deadlines.unwatch(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def trusts(self, host: str | None) -> bool:
        """Say whether the peer's x-forwarded-* headers are to be believed."""
        if not self._trusted or host is None:
            return False
        try:
            address = ip_address(host)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # as a listener of both families sees IPv4 peers
        return any(address in network for network in self._trusted)

    async def drain(self, seconds: float) -> None:
        """Let requests under way finish, for so long; then close what is left."""
        self.draining = True
        for connection in list(self._connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(seconds):
                await self.until_closed()
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self.until_closed()
        self.deadlines.close()

    async def until_closed(self) -> None:
        """Wait until no client is connected."""
        if self._connections:
            await self._all_closed.wait()
