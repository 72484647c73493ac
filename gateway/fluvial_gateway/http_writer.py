"""Writing one response: the instance's head with ours added, and the body as the framing asks."""

from __future__ import annotations

from typing import Final

from fluvial.errors import WireError
from fluvial.wire import Framing
from fluvial_gateway.http_heads import RequestHead
from fluvial_gateway.http_invocations import HttpInvocation
from fluvial_gateway.http_responses import (
    CHUNKED,
    CLOSE,
    KEEP_ALIVE,
    LAST_CHUNK,
    CheckedHead,
    DateHeader,
    invocation_lines,
)

_BODILESS: Final = frozenset({204, 304})


class ResponseWriter:
    """Turns one response into bytes; refuses a body that is not what the head announced."""

    __slots__ = ("_checked", "_is_1_1", "_mode", "_remaining", "keep_alive")

    def __init__(self, request: RequestHead, checked: CheckedHead, framing: Framing) -> None:
        length = checked.content_length
        mode = framing
        if request.method == "HEAD" or checked.status in _BODILESS:
            mode = Framing.NONE
        elif framing is Framing.NONE:
            raise WireError("a response without body where one is expected")
        elif (framing is Framing.LENGTH) != (length is not None):
            raise WireError("the response's framing and its content-length contradict each other")
        self.keep_alive = True
        self._checked = checked
        self._is_1_1 = request.is_1_1
        self._mode = mode
        self._remaining = length if mode is Framing.LENGTH and length is not None else 0

    def begin(
        self,
        head: bytes,
        chunk: bytes,
        invocation: HttpInvocation,
        date: DateHeader,
        *,
        keep_alive: bool,
        more: bool,
    ) -> bytes:
        """Return the head and the first bytes of the body.

        Raises:
            WireError: the body is not what the head announced.
        """
        until_close = self._mode is Framing.STREAM and not self._is_1_1
        self.keep_alive = keep_alive and not until_close
        connection = b"" if self._is_1_1 else KEEP_ALIVE
        return b"".join(
            (
                head,
                b"" if self._checked.has_date else date.line(),
                connection if self.keep_alive else CLOSE,
                CHUNKED if self._mode is Framing.STREAM and self._is_1_1 else b"",
                invocation_lines(invocation.id, *invocation.timing()),
                b"\r\n",
                self.go_on(chunk, more=more),
            )
        )

    def go_on(self, chunk: bytes, *, more: bool) -> bytes:
        """Return further bytes of the body; `more` false ends it.

        Raises:
            WireError: the body is longer or shorter than announced.
        """
        if self._mode is Framing.LENGTH:
            self._remaining -= len(chunk)
            if self._remaining < 0 or (self._remaining and not more):
                raise WireError("the response's body and its content-length differ")
            return chunk
        if self._mode is Framing.NONE:
            return b""
        if not self._is_1_1:
            return chunk
        framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        return framed if more else framed + LAST_CHUNK
