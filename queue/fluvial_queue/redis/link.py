"""A connection to the store that makes itself anew: `Link`.

While there is no connection, calls wait for the next attempt to connect and fail with it, so a
caller waits at most one pause plus one attempt. What waits or is outstanding is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Any, Final

import hiredis

from fluvial_queue.contract import StoreError, StoreFullError, StoreUnavailableError
from fluvial_queue.redis.address import Address
from fluvial_queue.redis.dialing import Command, connect
from fluvial_queue.redis.protocol import Call, Wire

logger = logging.getLogger(__name__)

MAX_CALLS: Final = 65_536  # waiting or outstanding; far above what a full dispatcher has in flight
REPLY_SECONDS: Final = 15.0  # longer than any script or fsync of a healthy server takes
CLOSE_SECONDS: Final = 2.0
_FIRST_PAUSE_SECONDS: Final = 0.01
_LONGEST_PAUSE_SECONDS: Final = 1.0


class Link:
    """A pipelined connection that reconnects with back-off; used from one event loop."""

    def __init__(
        self,
        address: Address,
        *,
        greeting: Sequence[Command] = (),
        reply_seconds: float = REPLY_SECONDS,
    ) -> None:
        """`greeting`: commands that every new connection sends first, e.g. to load scripts."""
        self._address = address
        self._greeting = [*greeting, ("PING",)]
        self._reply_seconds = reply_seconds
        self._wire: Wire | None = None
        self._waiting: list[Call] = []
        self._reconnecting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, *, patience_seconds: float = 0.0) -> None:
        """Connect, trying again for up to `patience_seconds`.

        Raises:
            StoreUnavailableError: no server answers, or it is still loading.
            StoreError: it refuses us.
        """
        self._loop = asyncio.get_running_loop()
        deadline = self._loop.time() + patience_seconds
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                self._wire = await self._connect()
                return
            except StoreUnavailableError:
                if self._loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def close(self) -> None:
        """Let outstanding calls finish for a moment, then end the connection."""
        loop, self._loop = self._loop, None  # refuses new calls, and stops reconnecting
        if self._reconnecting is not None:
            self._reconnecting.cancel()
            await asyncio.gather(self._reconnecting, return_exceptions=True)
            self._reconnecting = None
        self._fail_waiting("the store is closed")
        if self._wire is not None and loop is not None:
            if self._wire.outstanding:
                last: asyncio.Future[Any] = loop.create_future()
                self._wire.send(Call(hiredis.pack_command(("PING",)), False, last))
                await asyncio.wait([last], timeout=CLOSE_SECONDS)
                _ignore_error(last)
            self._wire.close()
            await asyncio.wait([self._wire.closed], timeout=CLOSE_SECONDS)
            self._wire = None

    def call(self, command: Command, *, writes: bool) -> asyncio.Future[Any]:
        """Send a command; cancelling the future drops the answer, not the command.

        `writes`: whether repeating it could matter, so that a lost answer is an unknown outcome.
        """
        loop, wire = self._loop, self._wire
        if loop is None:
            raise StoreUnavailableError("the store is not open")
        outstanding = len(self._waiting) if wire is None else wire.outstanding
        if outstanding >= MAX_CALLS:
            raise StoreUnavailableError(f"{MAX_CALLS} calls to the store are under way already")
        future: asyncio.Future[Any] = loop.create_future()
        call = Call(hiredis.pack_command(tuple(command)), writes, future)
        if wire is None:
            self._waiting.append(call)
        else:
            wire.send(call)
        return future

    async def calls(self, commands: Sequence[Command], *, writes: bool) -> list[Any]:
        """Send commands in one write and return their replies; the first error is raised."""
        return await asyncio.gather(*[self.call(command, writes=writes) for command in commands])

    # ---- connecting ----

    async def _connect(self) -> Wire:
        return await connect(self._address, self._make_wire, self._greeting)

    def _make_wire(self) -> Wire:
        return Wire(reply_seconds=self._reply_seconds, on_lost=self._on_lost)

    def _on_lost(self, wire: Wire) -> None:
        if wire is not self._wire:
            return  # it never got through its greeting
        self._wire = None
        self._waiting.extend(wire.lost_calls)
        if self._loop is None:
            self._fail_waiting("the store is closed")
        elif self._reconnecting is None:
            logger.warning("store connection lost", extra={"store": str(self._address)})
            self._reconnecting = self._loop.create_task(self._reconnect(), name="store-reconnect")

    async def _reconnect(self) -> None:
        """Owned by this link: `close` cancels and awaits it."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                wire = await self._connect()
            except StoreError as error:
                logger.info("store not reachable", extra={"reason": str(error)})
                self._fail_waiting(str(error), is_full=isinstance(error, StoreFullError))
            else:
                self._adopt(wire)
                return
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _adopt(self, wire: Wire) -> None:
        logger.info("store connected", extra={"store": str(self._address)})
        self._reconnecting = None
        self._wire = wire
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            if not call.future.done():
                wire.send(call)

    def _fail_waiting(self, reason: str, *, is_full: bool = False) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call.fail(StoreFullError(reason) if is_full else StoreUnavailableError(reason))


def _ignore_error(future: asyncio.Future[Any]) -> None:
    """Mark a future's error as seen: the caller only wanted to know that it is over."""
    if future.done() and not future.cancelled():
        future.exception()
