"""ASGI's `websocket` scope over a tunnel: one `WebSocketInvocation` is one WebSocket.

* Until the app accepts, it is a request that any HTTP response can answer: `websocket.close` is a
  403, and `websocket.http.response.*` (an extension of ASGI) says more.
* Frames are read when they come, so a ping is answered and a close is seen whatever the app waits
  for. Credit for a message is granted when the app takes it: what waits here is bounded by the
  window, and one message more.
* What is sent leaves in order, a frame at a time, and `send` waits until it has left. Of several
  pings that come while the client does not read, the last one is answered, as RFC 6455 allows.
* It is always closed with a code: the app's, 1000 when the app returns, 1011 when it fails, 1001 at
  its maximum duration and 1012 when instance or gateway stop. Then the app hears
  `websocket.disconnect`, and is cancelled if it does not end within a grace.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from fluvial.wire import CHUNK_BYTES, FrameType, Framing, pack
from fluvial_invoker.instance.asgi import AsgiApp, HttpInvocation, Message
from fluvial_invoker.instance.credit import DISCONNECT_GRACE_SECONDS, ClientGoneError
from fluvial_invoker.instance.invocations import (
    CANCELLED_BY_DRAIN,
    CANCELLED_BY_TIMEOUT,
    OUTCOME_CANCELLED,
    OUTCOME_ERROR,
    OUTCOME_OK,
    OUTCOME_TIMEOUT,
    Link,
)
from fluvial_invoker.instance.output import report_exception
from fluvial_invoker.instance.response_heads import InvalidResponseError, serialise_head
from fluvial_invoker.instance.websocket_frames import (
    ABNORMAL,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    SERVICE_RESTART,
    Closed,
    Ping,
    WebSocketFrames,
    may_be_sent,
)

_RESPONSE: Final = int(FrameType.RESPONSE)
_RESPONSE_BODY: Final = int(FrameType.RESPONSE_BODY)
_TUNNEL: Final = int(Framing.TUNNEL)
_SWITCHING: Final = 101
_FORBIDDEN: Final = 403
_SWITCHING_LINE: Final = b"HTTP/1.1 101 Switching Protocols\r\n"
_MESSAGE_OVERHEAD: Final = 64  # what a waiting message costs beside its bytes, as the window counts
_DENIAL: Final = "websocket.http.response"
_NOT_THE_APPS: Final = frozenset(
    {b"content-length", b"sec-websocket-accept", b"sec-websocket-extensions", b"x-request-id"}
)


class WebSocketInvocation(HttpInvocation):
    """One WebSocket, as an ASGI app sees it."""

    __slots__ = (
        "_disconnect",
        "_ended",
        "_frames",
        "_held",
        "_is_draining",
        "_is_open",
        "_last_ping",
        "_messages",
        "_outbox",
        "_unreturned",
        "_was_told",
    )

    def __init__(
        self,
        header: list[Any],
        link: Link,
        *,
        app: AsgiApp,
        state: dict[str, Any] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(header, b"", link, app=app, state=state, loop=loop)
        self._frames = WebSocketFrames()
        self._was_told = False  # of the connect
        self._is_open = False
        self._ended = False  # the tunnel's last bytes have left
        self._is_draining = False
        self._messages: deque[str | bytes] = deque()
        self._held = 0  # bytes of the window that they take up
        self._unreturned = 0  # bytes that came and were not granted anew
        self._disconnect: Closed | None = None
        self._outbox = bytearray()
        self._last_ping: bytes | None = None

    def _scope(self) -> dict[str, Any]:
        scope = super()._scope()
        del scope["method"]
        headers = [*scope["headers"], (b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
        return scope | {
            "type": "websocket",
            "headers": headers,
            "subprotocols": self._offered(),
            "extensions": {_DENIAL: {}},
        }

    def _offered(self) -> list[str]:
        values = [value for name, value in self._request[5] if name == b"sec-websocket-protocol"]
        offered = b",".join(values).decode("latin-1").split(",")
        return [each.strip() for each in offered if each.strip()]

    # What comes

    def _take(self, chunk: bytes) -> None:
        if self._disconnect is not None:
            return  # what a client sends behind the end is nothing to anybody
        self._unreturned += len(chunk)
        for found in self._frames.receive(chunk):
            match found:
                case Ping(payload):
                    self._pong(payload)
                case Closed(code, reason):
                    self._close(code, reason)
                case message:
                    self._messages.append(message)
                    self._held += len(message) + _MESSAGE_OVERHEAD
        self._return_credit()
        self._wake_readers()

    def _return_credit(self) -> None:
        free = self._unreturned - self._held
        if free > 0:
            self._unreturned -= free
            self._taken(free)

    async def receive(self) -> Message:
        if not self._was_told:
            self._was_told = True
            return {"type": "websocket.connect"}
        while True:
            if self._messages:
                return self._next_message()
            if self._disconnect is not None:
                code, reason = self._disconnect.code, self._disconnect.reason
                return {"type": "websocket.disconnect", "code": code, "reason": reason}
            if self._read_changed is None:
                self._read_changed = asyncio.Event()
            await self._read_changed.wait()

    def _next_message(self) -> Message:
        message = self._messages.popleft()
        self._held -= len(message) + _MESSAGE_OVERHEAD
        self._return_credit()
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": message}

    # What is sent

    async def send(self, message: Message) -> None:
        kind: str = message["type"]
        if kind.startswith(_DENIAL) and not self._is_open:
            await super().send({**message, "type": kind.removeprefix("websocket.")})
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.send" and self._is_open:
            await self._send_message(message)
        elif kind == "websocket.close":
            await self._close_as_asked(message)
        else:
            raise InvalidResponseError(f"{kind!r} is not to be sent now")

    def _accept(self, message: Message) -> None:
        if self._is_open or self._status:
            raise InvalidResponseError("websocket.accept came twice, or after a response")
        if self._gone:
            raise ClientGoneError("the client is gone")
        subprotocol: str | None = message.get("subprotocol")
        headers = [
            pair for pair in message.get("headers", ()) if pair[0].lower() not in _NOT_THE_APPS
        ]
        if subprotocol is not None:
            if subprotocol not in self._offered():
                raise InvalidResponseError(f"subprotocol {subprotocol!r} was not offered")
            headers.append((b"sec-websocket-protocol", subprotocol.encode("latin-1")))
        lines, _ = serialise_head(200, headers)
        head = _SWITCHING_LINE + lines.partition(b"\r\n")[2]
        frame = pack(_RESPONSE, self.conversation, _SWITCHING, len(head), _TUNNEL, True, body=head)
        self.link.write(frame)
        self._is_open = True
        if self._is_draining:
            self._say_goodbye(SERVICE_RESTART, CANCELLED_BY_DRAIN, OUTCOME_CANCELLED)

    async def _send_message(self, message: Message) -> None:
        text: str | None = message.get("text")
        data = message.get("bytes") if text is None else text
        if data is None:
            raise InvalidResponseError("websocket.send has neither text nor bytes")
        await self._wait_until_sent()
        if self._disconnect is not None:
            raise ClientGoneError("the WebSocket is closed")
        self._outbox += self._frames.message(data)
        self._flush()
        await self._wait_until_sent()

    async def _close_as_asked(self, message: Message) -> None:
        if self._is_open:
            code: int = message.get("code") or NORMAL
            if not may_be_sent(code):
                raise InvalidResponseError(f"a WebSocket cannot be closed with code {code}")
            self._close(code, message.get("reason") or "")
            await self._wait_until_sent()
        elif not self._gone:
            start = {"type": "http.response.start", "status": _FORBIDDEN, "headers": ()}
            await super().send(start)
            await super().send({"type": "http.response.body", "body": b""})

    async def _wait_until_sent(self) -> None:
        """Wait until all that was sent has left, and more may be."""
        while self._outbox or self.link.is_congested:
            await self._wait_for_credit()
            self._flush()

    def credit_arrived(self, granted: int) -> None:
        super().credit_arrived(granted)
        if self._is_open:
            self._flush()

    def _pong(self, payload: bytes) -> None:
        if self._outbox:
            self._last_ping = payload  # a client that does not read must not fill our memory
        else:
            self._outbox += self._frames.pong(payload)
            self._flush()

    def _close(self, code: int, reason: str) -> None:
        """Say that this is the end, or answer to it; what follows from the client is not read."""
        if self._disconnect is None:
            self._disconnect = Closed(code, reason)
            self._last_ping = None
            self._outbox += self._frames.close(code, reason)
            self._flush()
        self._wake_readers()

    def _flush(self) -> None:
        while self._outbox and self._credit > 0 and not self._ended:
            chunk = bytes(self._outbox[: min(CHUNK_BYTES, self._credit)])
            del self._outbox[: len(chunk)]
            self._credit -= len(chunk)
            self.link.write(pack(_RESPONSE_BODY, self.conversation, True, body=chunk))
        if not self._outbox:
            if self._last_ping is not None:
                payload, self._last_ping = self._last_ping, None
                self._pong(payload)
            elif self._disconnect is not None:
                self._end()

    def _end(self) -> None:
        """The tunnel is over: the gateway closes the connection behind what was written."""
        if not self._ended:
            self._ended = True
            self.link.write(pack(_RESPONSE_BODY, self.conversation, False))

    # The end

    def drain(self) -> None:
        self._is_draining = True
        if self._is_open:
            self._say_goodbye(SERVICE_RESTART, CANCELLED_BY_DRAIN, OUTCOME_CANCELLED)

    def cancel(self, reason: str = "") -> None:
        if reason == CANCELLED_BY_DRAIN:
            self.drain()
        elif reason == CANCELLED_BY_TIMEOUT:
            self.expire()
        else:
            self._client_left = True
            self._disconnect = self._disconnect or Closed(ABNORMAL, "")
            self._cancel_softly()

    def expire(self) -> None:
        if self._is_open:
            self._say_goodbye(GOING_AWAY, "max_duration", OUTCOME_TIMEOUT)
        else:
            super().expire()

    def _say_goodbye(self, code: int, reason: str, outcome: str) -> None:
        if self.stopped is None:
            self.stopped = outcome
            self._close(code, reason)
            self._loop.call_later(DISCONNECT_GRACE_SECONDS, self._cancel_app)

    def _settle(self, error: BaseException | None) -> str:
        if not self._is_open:
            return super()._settle(error)
        outcome = self.stopped or (OUTCOME_OK if error is None else OUTCOME_ERROR)
        if error is not None and self.stopped is None:
            path = self._request[4].partition(b"?")[0].decode("latin-1")
            report_exception(error, self, f"WebSocket {path} failed")
        self._close(NORMAL if error is None else INTERNAL_ERROR, "")
        self._end()
        return outcome
