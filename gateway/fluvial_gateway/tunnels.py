"""A client connection that speaks something else than HTTP: bytes pass both ways, unread.

A slow side stops the other: what the instance may send is granted as the client takes it, and the
client is not read while the instance has no room for what it sends.
"""

from __future__ import annotations

import asyncio

from fluvial_gateway.deadlines import NEVER
from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_invocations import BACKLOG_BYTES
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.http_transport import ClientTransport
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.websocket_invocations import DRAINING, WebSocketInvocation

_DISCONNECTED = "the client disconnected"


class Tunnel(ClientTransport):
    """What a `HttpConnection` hands its transport to, once status 101 was written."""

    def __init__(
        self, front: HttpFront, transport: asyncio.Transport, invocation: WebSocketInvocation
    ) -> None:
        super().__init__(front)
        self._transport = transport
        self._invocation = invocation
        self._ungranted = 0  # bytes that the client has not taken yet

    def take_over(self, received: bytes, *, is_reading: bool) -> None:
        """Begin; `received` came behind the handshake."""
        self._reading = is_reading
        self._front.opened(self)
        self._transport.set_protocol(self)
        self._invocation.attach(self)
        if received:
            self._invocation.feed(received, more=True)
        self._update_reading()
        if self._front.draining:
            self.shutdown()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._discard(len(data))
            return
        self._invocation.feed(data, more=True)
        self._update_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._front.closed(self)
        self._invocation.detach(_DISCONNECTED)

    def resume_writing(self) -> None:
        super().resume_writing()
        ungranted, self._ungranted = self._ungranted, 0
        if ungranted:
            self._invocation.consumed(ungranted)

    # For the listener and its deadlines

    def shutdown(self) -> None:
        """Have the function close it, as only the function knows where a message ends."""
        self._invocation.cancel(DRAINING)

    def expired(self) -> None:
        """The client does not take what is written, or does not go although all is said."""
        if not self._looks_after_paused():
            self.abort()

    # HttpClient: what the invocation tells

    def invocation_placed(self) -> None: ...

    def response_started(
        self, status: int, framing: int, head: bytes, chunk: bytes, more: bool
    ) -> None:
        raise RuntimeError("a second response in a tunnel")

    def response_continued(self, chunk: bytes, more: bool) -> None:
        if self._closing:
            return
        if chunk:
            self._transport.write(chunk)
        if not more:
            self._invocation.detach()
            self._close(client_is_sending=True)
        elif self._write_deadline < NEVER:
            self._ungranted += len(chunk)
        else:
            self._invocation.consumed(len(chunk))

    def response_refused(self, problem: Problem) -> None:
        self.abort()

    def response_failed(self, reason: Unavailable) -> None:
        self.abort()

    def request_credited(self) -> None:
        self._update_reading()

    def _update_reading(self) -> None:
        if self._closing:
            return
        if self._invocation.backlog >= BACKLOG_BYTES:
            self._pause_reading()
        elif not self._reading:
            self._resume_reading()
            self._read_deadline = NEVER
            self._set_deadline()
