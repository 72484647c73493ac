"""WebSocket frames (RFC 6455) for one connection, without I/O: bytes in, messages and closes out.

`wsproto` reads and writes the frames. Here fragments become whole messages, within a limit, and the
first thing that breaks the protocol ends the conversation with the close code that says how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from wsproto import events
from wsproto.connection import Connection, ConnectionType
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

NORMAL: Final = 1000
GOING_AWAY: Final = 1001
ABNORMAL: Final = 1006  # never sent: the connection ended without a word
MESSAGE_TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
_NEVER_SENT: Final = frozenset({1004, 1005, ABNORMAL, 1015})  # RFC 6455 §7.4.1

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # as uvicorn has it


@dataclass(frozen=True, slots=True)
class Ping:
    """The client asks for a pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """Nothing more comes: the client has closed, or has broken the protocol."""

    code: int
    reason: str


Incoming = str | bytes | Ping | Closed


def may_be_sent(code: int) -> bool:
    """Whether an app may close with this code."""
    return NORMAL <= code < 5000 and code not in _NEVER_SENT


class WebSocketFrames:
    """The server's side of one WebSocket, after its handshake."""

    def __init__(self, max_message_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._connection = Connection(ConnectionType.SERVER)
        self._max_message_bytes = max_message_bytes
        self._fragments = bytearray()  # of a message that is not complete yet; text as UTF-8
        self._is_over = False

    def receive(self, data: bytes) -> Iterator[Incoming]:
        """Yield what `data` completes; after `Closed` there is nothing more, whatever comes."""
        if self._is_over:
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            found = self._read(event)
            if found is not None:
                yield found
            if isinstance(found, Closed):
                self._is_over = True
                return

    def message(self, data: str | bytes) -> bytes:
        """Return the frame of a whole message."""
        if isinstance(data, str):
            return self._connection.send(events.TextMessage(data=data))
        return self._connection.send(events.BytesMessage(data=data))

    def pong(self, payload: bytes) -> bytes:
        """Return the answer to a ping."""
        return self._connection.send(events.Pong(payload=payload))

    def close(self, code: int, reason: str = "") -> bytes:
        """Return the frame that closes, also as the answer to a close; nothing if one was made.

        A reason that is too long for a frame is cut.
        """
        said = CloseReason.NO_STATUS_RCVD if code == CloseReason.NO_STATUS_RCVD else code
        try:
            return self._connection.send(events.CloseConnection(code=said, reason=reason or None))
        except LocalProtocolError:
            return b""

    def _read(self, event: events.Event) -> Incoming | None:
        match event:
            case events.TextMessage():
                whole = self._gather(event.data.encode(), is_whole=event.message_finished)
                return whole.decode() if isinstance(whole, bytes) else whole
            case events.BytesMessage():
                return self._gather(bytes(event.data), is_whole=event.message_finished)
            case events.Ping():
                return Ping(bytes(event.payload))
            case events.CloseConnection():
                return Closed(int(event.code), event.reason or "")
            case _:  # a pong
                return None

    def _gather(self, data: bytes, *, is_whole: bool) -> bytes | Closed | None:
        if len(self._fragments) + len(data) > self._max_message_bytes:
            self._fragments.clear()
            return Closed(MESSAGE_TOO_BIG, f"a message has at most {self._max_message_bytes} bytes")
        if is_whole and not self._fragments:
            return data
        self._fragments += data
        if not is_whole:
            return None
        message = bytes(self._fragments)
        self._fragments.clear()
        return message
