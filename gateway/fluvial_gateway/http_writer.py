"""Writing one response: the instance's head with ours added, and the body as the framing asks."""

from __future__ import annotations

from typing import Final

from fluvial.errors import WireError
from fluvial.wire import Framing
from fluvial_gateway.http_heads import RequestLine
from fluvial_gateway.http_responses import (
    CHUNKED,
    CLOSE,
    KEEP_ALIVE,
    LAST_CHUNK,
    CheckedHead,
)

# members of an enumeration are looked up slowly
_LENGTH: Final = int(Framing.LENGTH)
_STREAM: Final = int(Framing.STREAM)
_NONE: Final = int(Framing.NONE)
_BODILESS: Final = frozenset({204, 304})


class ResponseWriter:
    """Turns one response into bytes; refuses a body that is not what the head announced."""

    __slots__ = ("_is_1_1", "_mode", "_remaining", "keep_alive", "lines")

    def __init__(
        self, line: RequestLine, checked: CheckedHead, framing: int, keep_alive: bool
    ) -> None:
        """Decide how the body is delimited; `lines` then are the headers that say so.

        Raises:
            WireError: the head, the framing and the request contradict each other.
        """
        length = checked.content_length
        if line.method == "HEAD" or checked.status in _BODILESS:
            framing = _NONE
        elif framing == _NONE:
            raise WireError("a response without body where one is expected")
        elif (framing == _LENGTH) != (length is not None):
            raise WireError("the response's framing and its content-length contradict each other")
        self._is_1_1 = line.is_1_1
        self._mode = framing
        self._remaining = length or 0
        until_close = framing == _STREAM and not line.is_1_1
        self.keep_alive = keep_alive and not until_close
        self.lines = (b"" if line.is_1_1 else KEEP_ALIVE) if self.keep_alive else CLOSE
        if framing == _STREAM and line.is_1_1:
            self.lines += CHUNKED

    def go_on(self, chunk: bytes, more: bool) -> bytes:
        """Return further bytes of the body; `more` false ends it.

        Raises:
            WireError: the body is longer or shorter than announced.
        """
        if self._mode == _LENGTH:
            self._remaining -= len(chunk)
            if self._remaining < 0 or (self._remaining and not more):
                raise WireError("the response's body and its content-length differ")
            return chunk
        if self._mode == _NONE:
            return b""
        if not self._is_1_1:
            return chunk
        framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        return framed if more else framed + LAST_CHUNK
