"""The connection on which an instance's watchdog tells of its health.

It is beside the link, since a blocked event loop reads and writes nothing there. Losing it costs
nothing but the news.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final, Protocol, cast

from fluvial import wire
from fluvial.errors import WireError
from fluvial.wire import FrameType
from fluvial_gateway.health import Health, read_health

_TOKEN_BYTES: Final = 16
logger = logging.getLogger(__name__)


class WatchOwner(Protocol):
    """Whoever keeps the instance."""

    def health_told(self, health: Health) -> None:
        """Its watchdog has spoken.

        Raises:
            WireError: what it says cannot be.
        """
        ...

    def watch_lost(self) -> None:
        """Nothing more will be heard of its watchdog."""
        ...


class InstanceWatch(asyncio.Protocol):
    """Reads HEALTH frames; `token` is what HELLO names it by."""

    def __init__(self, owner: WatchOwner) -> None:
        self.token = secrets.token_bytes(_TOKEN_BYTES)
        self._owner = owner
        self._reader = wire.FrameReader()
        self._transport: asyncio.Transport | None = None

    def close(self) -> None:
        """The link is gone."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(wire.pack(FrameType.WATCH, 0, self.token))

    def data_received(self, data: bytes) -> None:
        try:
            for header, _ in self._reader.feed(data):
                if header[0] != FrameType.HEALTH:
                    raise WireError(f"frame type {header[0]} where only HEALTH belongs")
                self._owner.health_told(read_health(header))
        except WireError as error:
            logger.warning("an instance broke the protocol", extra={"reason": str(error)})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._owner.watch_lost()
