"""What a link knows about each invocation under way, and whom it tells.

Flow control is here: what the instance may still send us (`receive_credit`) and what we may still
send (`send_credit`), both in body bytes, as `fluvial.wire` says. The serialised response head does
not count.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from fluvial import wire
from fluvial.errors import WireError
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Subject

# method and the rest of a REQUEST's fields up to its deadline:
# invocation, method, target, headers, client, scheme, HTTP version
RequestFields = tuple[str, str, bytes, list[tuple[bytes, bytes]], tuple[str, int] | None, str, str]

# Credit is granted in portions, not per frame. An instance that has all its bytes consumed then
# still has three quarters of the window, more than one chunk.
_GRANT_BYTES: Final = wire.INITIAL_CREDIT // 4
_MAX_SEND_CREDIT: Final = 1 << 30  # more than any honest sum of grants


class FrameSender(Protocol):
    """The link, as its slots see it."""

    def send(self, frame: bytes) -> None:
        """Write one frame."""
        ...


class HttpSink(Protocol):
    """Hears what becomes of an HTTP invocation; one of the last three is called, last, once."""

    def response(self, status: int, framing: int, head: bytes, chunk: bytes, more: bool) -> None:
        """The response begins; `framing` is a `wire.Framing`."""
        ...

    def response_body(self, chunk: bytes, *, more: bool) -> None:
        """The response goes on."""
        ...

    def broken(self, code: str) -> None:
        """The started response cannot be completed."""
        ...

    def credited(self) -> None:
        """More of the request's body may be sent; the handler has started."""
        ...

    def finished(self, cpu_us: int, outcome: str) -> None:
        """The invocation ended."""
        ...

    def nacked(self, reason: str) -> None:
        """The handler was not started."""
        ...

    def lost(self, reason: str) -> None:
        """The link is gone."""
        ...


class AnswerSink(Protocol):
    """Hears what becomes of a turn, a step or a reveal; one of the last three is called, once."""

    def heartbeat(self, progress: bytes) -> None:
        """A step is alive; `progress` is sealed, and empty if there is nothing new.

        Raises:
            WireError: the progress is too large.
        """
        ...

    def answered(self, outcome: str, meta: dict[str, Any], cpu_us: int, body: bytes) -> None:
        """The instance answered."""
        ...

    def nacked(self, reason: str) -> None:
        """The handler was not started."""
        ...

    def lost(self, reason: str) -> None:
        """The link is gone."""
        ...


class AnswerSlot:
    """A turn, a step or a reveal under way."""

    __slots__ = ("_link", "id", "sink", "subject")
    may_nack = True

    def __init__(
        self, slot_id: int, link: FrameSender, sink: AnswerSink, subject: Subject | None
    ) -> None:
        self.id = slot_id
        self.sink = sink
        self.subject = subject
        self._link = link

    def cancel(self, reason: str) -> None:
        """Ask the instance to end it; the sink still hears how it ended."""
        self._link.send(wire.pack(FrameType.CANCEL, self.id, reason))


class HttpSlot:
    """An HTTP invocation under way."""

    # Defaults of the class: one of these is made per request, and most never change them.
    send_credit = wire.INITIAL_CREDIT
    receive_credit = wire.INITIAL_CREDIT
    may_nack = True
    responded = False
    _complete = False
    _ungranted = 0

    def __init__(self, slot_id: int, link: FrameSender, sink: HttpSink) -> None:
        self.id = slot_id
        self.sink = sink
        self._link = link

    # What the sink asks for

    def send_body(self, chunk: bytes, *, more: bool) -> None:
        """Send request body bytes; the caller has looked at `send_credit` and the frame's size."""
        self.send_credit -= len(chunk)
        self._link.send(wire.pack(FrameType.REQUEST_BODY, self.id, more, body=chunk))

    def consumed(self, size: int) -> None:
        """Let the instance send `size` more bytes: the client has taken as many."""
        self._ungranted += size
        if self._ungranted >= _GRANT_BYTES and not self._complete:
            self._link.send(wire.pack(FrameType.CREDIT, self.id, self._ungranted))
            self.receive_credit += self._ungranted
            self._ungranted = 0

    def cancel(self, reason: str) -> None:
        """Ask the instance to end it; the sink still hears how it ended."""
        self._link.send(wire.pack(FrameType.CANCEL, self.id, reason))

    # What the link has read

    def on_response(self, header: list[Any], body: bytes) -> None:
        status, head_bytes, framing, more = header[2], header[3], header[4], header[5] is True
        if self.responded:
            raise WireError(f"a second response to {self.id}")
        if not isinstance(status, int) or not isinstance(head_bytes, int):
            raise WireError("a response without status or head")
        if framing not in (0, 1, 2, 3) or not 0 < head_bytes <= len(body):
            raise WireError("a response with unknown framing or a head beyond its body")
        self.responded = True
        self.may_nack = False
        if more or len(body) > wire.INITIAL_CREDIT:  # else: whole, and within the first window
            self._take(len(body) - head_bytes, more)
        else:
            self._complete = True
        self.sink.response(status, framing, body[:head_bytes], body[head_bytes:], more)

    def on_response_body(self, more: bool, body: bytes) -> None:
        if not self.responded or self._complete:
            raise WireError(f"body of {self.id} outside its response")
        self._take(len(body), more)
        self.sink.response_body(body, more=more)

    def on_broken(self, code: str) -> None:
        self.may_nack = False
        self._complete = True
        self.sink.broken(code)

    def on_credit(self, size: int) -> None:
        self.may_nack = False
        self.send_credit += size
        if self.send_credit > _MAX_SEND_CREDIT:
            raise WireError(f"credit of {self.send_credit} bytes for {self.id}")
        self.sink.credited()

    def _take(self, size: int, more: bool) -> None:
        self.receive_credit -= size
        self._complete = not more
        if self.receive_credit < 0:
            raise WireError(f"{-self.receive_credit} bytes of {self.id} beyond the credit")
