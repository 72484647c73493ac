"""What a client connection does below HTTP: deadlines, back-pressure, and three ways to end."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
from typing import Final, cast

from fluvial_gateway.deadlines import NEVER
from fluvial_gateway.http_front import HttpFront

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # linger, for no time


class ClientTransport(asyncio.Protocol):
    """The base of a client's protocol; `deadline` is the earlier of reading's and writing's."""

    def __init__(self, front: HttpFront) -> None:
        self.deadline = NEVER
        self._front = front
        self._limits = front.limits
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)  # until connected
        self._reading = True
        self._closing = False
        self._read_deadline = NEVER
        self._write_deadline = NEVER  # set while the client does not take what is written
        self._discarded = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def eof_received(self) -> None:
        """Let the transport close: a client that will not send is taken as gone."""

    def pause_writing(self) -> None:
        self._write_deadline = self._front.clock() + self._limits.write_stall_seconds
        self._set_deadline()

    def resume_writing(self) -> None:
        self._write_deadline = NEVER
        self._set_deadline()

    # Ends

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._transport.abort()

    def _break(self) -> None:
        """End a response that cannot be completed by a reset: no client takes that for an end."""
        peer = self._transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def _close(self, *, client_is_sending: bool) -> None:
        """Send what is written, then close.

        Closing on a client in the middle of sending would send a reset, and the reset would
        overtake our answer: such a client is listened to, unread, until it has ended or is late.
        """
        self._closing = True
        self._read_within(self._limits.linger_seconds)
        self._resume_reading()
        if client_is_sending:
            self._discarded = 0
            self._transport.write_eof()
        else:
            self._transport.close()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > self._limits.discarded_bytes:
            self.abort()

    # Deadlines and reading

    def _read_within(self, seconds: float) -> None:
        self._read_deadline = self._front.clock() + seconds
        self._set_deadline()

    def _set_deadline(self) -> None:
        if self._write_deadline < self._read_deadline:
            self.deadline = self._write_deadline
        else:
            self.deadline = self._read_deadline

    def _pause_reading(self) -> None:
        """Let the client wait; a transport that does not read does not hear of its end either."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._read_within(self._limits.hang_up_seconds)

    def _looks_after_paused(self) -> bool:
        """Whether the deadline was only that of a look at a client that is not read."""
        if self._reading or self._closing or self._write_deadline <= self._front.clock():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        if poll.poll(0):
            self.abort()
        else:
            self._read_within(self._limits.hang_up_seconds)
        return True

    def _resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
