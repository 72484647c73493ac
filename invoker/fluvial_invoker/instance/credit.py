"""Invocations whose bytes, both ways, keep within what the other side has granted.

What is sent waits for the gateway's credit; credit for what comes is granted as the function takes
it. So what is buffered here is bounded by INITIAL_CREDIT each way and invocation.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from fluvial.errors import WireError
from fluvial.wire import INITIAL_CREDIT, FrameType, pack, pack_plain
from fluvial_invoker.instance.invocations import Invocation, Link

# How long a function that listens for the disconnect may take to end by itself.
DISCONNECT_GRACE_SECONDS: Final = 2.0
_GRANT_BYTES: Final = INITIAL_CREDIT // 2  # granting in halves costs a frame per 128 KiB

_FINISHED: Final = int(FrameType.FINISHED)
_CREDIT: Final = int(FrameType.CREDIT)


class ClientGoneError(OSError):
    """The client does not want what is sent to it."""


class CreditedInvocation(Invocation):
    """The base of everything that a REQUEST frame begins."""

    __slots__ = (
        "_allowed",
        "_credit",
        "_gone",
        "_loop",
        "_more",
        "_outcome",
        "_owed",
        "_received",
        "_request",
        "_write_changed",
    )

    def __init__(
        self, header: list[Any], received: int, link: Link, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(header[1], link, id=header[2])
        self._loop = loop
        self._request = header
        self._more: bool = header[10]
        self._received = received  # in all
        self._allowed = INITIAL_CREDIT
        self._owed = 0  # taken by the function, not granted anew yet
        self._credit: int = INITIAL_CREDIT
        self._gone = False
        self._outcome: str | None = None  # until it is known
        self._write_changed: asyncio.Event | None = None

    # What comes in

    def body_arrived(self, chunk: bytes, *, more: bool) -> None:
        """Take a REQUEST_BODY frame.

        Raises:
            WireError: the gateway sent more than it had credit for.
        """
        if not self._more or self._gone:
            return
        self._received += len(chunk)
        if self._received > self._allowed:
            raise WireError(f"invocation {self.id}: request body above the granted credit")
        self._more = more
        if chunk or not more:
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        """Keep bytes that came, until the function takes them."""
        raise NotImplementedError

    def _taken(self, size: int) -> None:
        """The function has taken so many bytes: let others come."""
        self._owed += size
        if self._owed >= _GRANT_BYTES:
            self._allowed += self._owed
            self.link.write(pack(_CREDIT, self.conversation, self._owed))
            self._owed = 0

    # What goes out

    def credit_arrived(self, granted: int) -> None:
        """Take a CREDIT frame."""
        self._credit += granted
        self._wake_writers()

    async def _wait_for_credit(self) -> None:
        while True:
            if self._gone:
                raise ClientGoneError("the client is gone")
            if self.link.is_congested:
                await self.link.wait_until_writable()
            elif self._credit > 0:
                return
            else:
                if self._write_changed is None:
                    self._write_changed = asyncio.Event()
                await self._write_changed.wait()

    def _wake_writers(self) -> None:
        if self._write_changed is not None:
            self._write_changed.set()
            self._write_changed = None

    # The end

    def stop(self, outcome: str) -> None:
        self.disconnect()
        super().stop(outcome)

    def disconnect(self) -> None:
        """Nobody reads what is sent any more."""
        self._gone = True
        self._wake_writers()

    def finish(self, outcome: str) -> None:
        """Write this invocation's last frame."""
        self._outcome = outcome
        self.link.write(pack_plain(_FINISHED, self.conversation, self.cpu_us, outcome))
