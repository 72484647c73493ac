"""WebSockets of WSGI apps, which take the connection's socket and speak the protocol themselves.

WSGI knows no WebSockets. Libraries such as simple-websocket (under flask-sock) look for the socket
that a server leaves in `environ`; here it is one end of a socket pair, and what passes the other
end is the tunnel. The app writes its answer to the handshake there, too: the subprotocol and the
extensions in it go to the gateway, which answers the client itself. An app that does not touch the
socket answers with an ordinary response.

The app's code runs in a thread, which nothing can stop: it hears of an end as the end of its
socket, and the invocation keeps its place here until the thread has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import Any, Final, cast

from fluvial.wire import CHUNK_BYTES, FrameType, Framing, pack
from fluvial_invoker.instance.asgi import AsgiApp, Message
from fluvial_invoker.instance.invocations import (
    CANCELLED_BY_DRAIN,
    CANCELLED_BY_TIMEOUT,
    OUTCOME_CANCELLED,
    OUTCOME_ERROR,
    OUTCOME_OK,
    Link,
)
from fluvial_invoker.instance.output import report, report_exception
from fluvial_invoker.instance.response_heads import (
    MAX_HEAD_BYTES,
    InvalidResponseError,
    serialise_head,
)
from fluvial_invoker.instance.threaded import ThreadedInvocation
from fluvial_invoker.instance.wsgi import SOCKET

_RESPONSE: Final = int(FrameType.RESPONSE)
_RESPONSE_BODY: Final = int(FrameType.RESPONSE_BODY)
_TUNNEL: Final = int(Framing.TUNNEL)
_SWITCHING: Final = 101
_SWITCHING_LINE: Final = re.compile(rb"HTTP/1\.1 101 [^\r\n]*")
_HEADER: Final = re.compile(rb"([^:\r\n]+):[ \t]*([^\r\n]*)")
_OF_THE_GATEWAY: Final = frozenset(
    {
        b"connection",
        b"upgrade",
        b"content-length",
        b"sec-websocket-accept",
        b"date",
        b"x-request-id",
    }
)
_SCHEMES: Final = {"ws": "http", "wss": "https"}


class SocketInvocation(ThreadedInvocation):
    """One WebSocket, as a WSGI app sees it."""

    __slots__ = ("_ended", "_handshake", "_is_switched", "_outbox", "_pipe", "_waiting")

    def __init__(
        self, header: list[Any], link: Link, *, app: AsgiApp, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(header, b"", link, app=app, state=None, loop=loop)
        self._pipe: _Pipe | None = None  # while the app may use its socket
        self._handshake = b""  # what the app has written of its answer to it
        self._is_switched = False
        self._outbox = bytearray()
        self._waiting = 0  # bytes that the app has not read yet
        self._ended = False  # the tunnel's last bytes have left

    async def _serve(self) -> None:
        ours, theirs = socket.socketpair()
        pipe = self._pipe = _Pipe(self)
        await self._loop.connect_accepted_socket(lambda: pipe, ours)
        try:
            await self._app(self._scope() | {SOCKET: theirs}, self.receive, self.send)
        finally:
            with contextlib.suppress(OSError):  # the app has closed it itself
                theirs.shutdown(socket.SHUT_RDWR)
            theirs.close()
        if self._is_switched:
            await pipe.closed.wait()

    def _scope(self) -> dict[str, Any]:
        scope = super()._scope()
        headers = [*scope["headers"], (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        return scope | {"headers": headers, "scheme": _SCHEMES[scope["scheme"]]}

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        if not self._is_switched:  # else a formality of WSGI: the answer was the WebSocket
            await super().send(message)

    # From the client to the app

    def _take(self, chunk: bytes) -> None:
        if self._pipe is not None:
            self._waiting += len(chunk)
            self._pipe.write(chunk)

    def app_reads(self) -> None:
        """The app has read most of what came."""
        waiting, self._waiting = self._waiting, 0
        self._taken(waiting)

    # From the app to the client

    def app_wrote(self, data: bytes) -> None:
        """Take bytes that the app has written to its socket."""
        if not self._is_switched:
            self._handshake += data
            head, end, data = self._handshake.partition(b"\r\n\r\n")
            if not end and len(head) <= MAX_HEAD_BYTES:
                return
            try:
                self._switch(head)
            except InvalidResponseError as error:
                report(f"a WebSocket's handshake failed: {error}", self)
                self.stop(OUTCOME_ERROR)
                return
        self._outbox += data
        self._flush()

    def app_closed(self) -> None:
        """The app's socket is closed; what it has written before was taken."""
        self._pipe = None
        if self._is_switched and not self._outbox:
            self._end()

    def credit_arrived(self, granted: int) -> None:
        super().credit_arrived(granted)
        if self._is_switched:
            self._flush()

    def _switch(self, head: bytes) -> None:
        line, *lines = head.split(b"\r\n")
        if self._status or not _SWITCHING_LINE.fullmatch(line):
            raise InvalidResponseError(f"the app answered {line[:100]!r}, not with status 101")
        found = [_HEADER.fullmatch(each) for each in lines]
        pairs = [(match[1].lower(), match[2]) for match in found if match is not None]
        kept = [pair for pair in pairs if pair[0] not in _OF_THE_GATEWAY]
        serialised = serialise_head(200, kept)[0]
        head = b"HTTP/1.1 101 Switching Protocols\r\n" + serialised.partition(b"\r\n")[2]
        frame = pack(_RESPONSE, self.conversation, _SWITCHING, len(head), _TUNNEL, True, body=head)
        self.link.write(frame)
        self._is_switched = True

    def _flush(self) -> None:
        while self._outbox and self._credit > 0 and not self._ended:
            chunk = bytes(self._outbox[: min(CHUNK_BYTES, self._credit)])
            del self._outbox[: len(chunk)]
            self._credit -= len(chunk)
            self.link.write(pack(_RESPONSE_BODY, self.conversation, True, body=chunk))
        if self._pipe is not None:
            self._pipe.read_on(not self._outbox)
        elif not self._outbox:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.link.write(pack(_RESPONSE_BODY, self.conversation, False))

    # The end

    def drain(self) -> None:
        if self._is_switched:
            self.stop(OUTCOME_CANCELLED)

    def cancel(self, reason: str = "") -> None:
        if self._is_switched and reason not in (CANCELLED_BY_DRAIN, CANCELLED_BY_TIMEOUT):
            self._client_left = True
            self.disconnect()  # an app whose socket has ended ends: that is how these are closed
        else:
            super().cancel(reason)

    def disconnect(self) -> None:
        super().disconnect()
        if self._pipe is not None:
            self._pipe.close()

    def _settle(self, error: BaseException | None) -> str:
        if not self._is_switched:
            return super()._settle(error)
        if error is not None:
            path = self._request[4].partition(b"?")[0].decode("latin-1")
            report_exception(error, self, f"WebSocket {path} failed")
        self._end()
        return self.stopped or (OUTCOME_OK if error is None else OUTCOME_ERROR)


class _Pipe(asyncio.Protocol):
    """Our end of the socket pair."""

    def __init__(self, invocation: SocketInvocation) -> None:
        self._invocation = invocation
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self._is_reading = True
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
        if not self._is_full:
            self._invocation.app_reads()

    def read_on(self, wanted: bool) -> None:
        """Read what the app writes, or let it wait."""
        transport = self._transport
        if transport is None or wanted is self._is_reading:
            return
        self._is_reading = wanted
        if wanted:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def close(self) -> None:
        """Let the app find its socket closed."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._invocation.app_wrote(data)

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._invocation.app_reads()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.closed.set()
        self._invocation.app_closed()
