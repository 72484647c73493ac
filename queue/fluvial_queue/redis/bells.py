"""Doorbells: a subscription to the store's channel, made anew when it breaks.

It has its own connection, as one that subscribes can do nothing else.
"""

from __future__ import annotations

import logging
import random
from collections.abc import AsyncGenerator
from typing import Any, Final

from fluvial_queue.bells import LOST, BellQueue
from fluvial_queue.contract import Bell, StoreError
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.dialing import CONNECT_SECONDS, connect
from fluvial_queue.redis.protocol import Wire

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 2.0


class Subscription:
    """One listener's connection to the channel."""

    def __init__(self, address: Address, channel: str) -> None:
        self._address = address
        self._channel = channel
        self._queue = BellQueue()
        self._wire: Wire | None = None

    def close(self) -> None:
        """End `listen`."""
        self._queue.close()
        if self._wire is not None:
            self._wire.abort()

    async def listen(self) -> AsyncGenerator[Bell, None]:
        """Yield `lost` whenever a subscription begins, then its bells."""
        queue = self._queue
        try:
            while await self._subscribe():
                queue.ring(LOST)
                while self._is_listening():
                    while (bell := queue.take()) is not None:
                        yield bell
                    if self._is_listening():
                        await queue.wait()
        finally:
            self.close()

    def _is_listening(self) -> bool:
        return self._wire is not None and not self._queue.is_closed

    async def _subscribe(self) -> bool:
        """Connect, however long it takes; False once closed."""
        pause = _FIRST_PAUSE_SECONDS
        while not self._queue.is_closed:
            try:
                self._wire = await connect(
                    self._address, self._make_wire, [("PING",), ("SUBSCRIBE", self._channel)]
                )
                return True
            except StoreError as error:
                logger.info("cannot listen to the store's bells", extra={"reason": str(error)})
            await self._queue.wait(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return False

    def _make_wire(self) -> Wire:
        return Wire(reply_seconds=CONNECT_SECONDS, on_lost=self._on_lost, on_push=self._on_push)

    def _on_lost(self, wire: Wire) -> None:
        if wire is self._wire:
            self._wire = None
            self._queue.wake()

    def _on_push(self, push: Any) -> None:
        if push[0] == b"message":
            bell = parse_bell(push[2].decode())
            if bell is not None:
                self._queue.ring(bell)


def parse_bell(text: str) -> Bell | None:
    """Return the bell that a script has published; None for one that this version does not know."""
    if text.startswith("f"):
        return Bell("finished", run_id=text[1:])
    if text.startswith("s"):
        return Bell("stream", run_id=text[1:])
    if text.startswith("m") and text[1:].isdigit():
        return Bell("messages", partition=int(text[1:]))
    partition, _, due_ms = text[1:].partition(":")
    if text.startswith("t") and partition.isdigit() and due_ms.isdigit():
        return Bell("timer", partition=int(partition), due_ms=int(due_ms))
    return None
