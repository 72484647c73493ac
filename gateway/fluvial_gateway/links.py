"""One framed connection from this gateway to an instance.

Invariants:

1. Each id has one slot from the frame that opens it until FINISHED, ANSWER or NACK, or until the
   link is lost. A slot hears exactly one of `finished`/`answered`, `nacked` and `lost`, last.
2. The owner hears `link_lost` before the slots do, so that what they re-route goes elsewhere.
3. A frame that breaks the protocol closes the link at once; nothing after it is looked at. The
   bytes come from a process that runs user code: they are checked as a stranger's would be.
4. Frames written in one turn of the event loop leave in one write.
5. What the instance's watchdog has revoked is sent back at once (`take_back`), although its frames
   may wait unread in a blocked loop. Each such id gets one late end, which nobody waits for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from fluvial import wire
from fluvial.errors import WireError
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Subject
from fluvial_gateway.link_calls import CallDesk
from fluvial_gateway.link_slots import AnswerSink, AnswerSlot, HttpSink, HttpSlot, RequestFields

LINK_LOST: Final = "link lost"  # how the reason begins when the other side ended the link
logger = logging.getLogger(__name__)

_REQUEST: Final = int(FrameType.REQUEST)  # members of an enumeration are looked up slowly

Handler = Callable[[list[Any], bytes], None]


class LinkOwner(Protocol):
    """Whoever keeps the instance of a link."""

    def link_ready(self, max_concurrency: int, import_seconds: float) -> None:
        """The instance is ready: handlers may start from now on."""
        ...

    def link_draining(self, reason: str) -> None:
        """The instance accepts no further invocation."""
        ...

    def link_lost(self, reason: str) -> None:
        """The connection is gone, and with it everything under way; called once."""
        ...


class Link(asyncio.Protocol):
    """Speaks frames with one instance; everything is a callback."""

    def __init__(self, owner: LinkOwner, calls: CallDesk) -> None:
        self._owner = owner
        self._calls = calls
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = wire.FrameReader()
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._last_id = 0
        self._http: dict[int, HttpSlot] = {}
        self._answers: dict[int, AnswerSlot] = {}
        self._taken_back: set[int] = set()  # whose late end has not come yet
        self._closing: str | None = None
        self._welcomed = False
        # with the least length of a header: type, id and the fields that are read here
        self._handlers: dict[int, tuple[Handler, int]] = {
            FrameType.RESPONSE: (self._on_response, 6),
            FrameType.RESPONSE_BODY: (self._on_response_body, 3),
            FrameType.FINISHED: (self._on_finished, 4),
            FrameType.ANSWER: (self._on_answer, 5),
            FrameType.HEARTBEAT: (self._on_heartbeat, 2),
            FrameType.CREDIT: (self._on_credit, 3),
            FrameType.NACK: (self._on_nack, 3),
            FrameType.BROKEN: (self._on_broken, 3),
            FrameType.CALL: (self._on_call, 5),
            FrameType.WELCOME: (self._on_welcome, 5),
            FrameType.GOAWAY: (self._on_goaway, 3),
        }

    # What the router asks for

    def hello(
        self, credential: bytes, gateway: str, partitions: int, app_url: str, token: bytes
    ) -> None:
        """Present the credential; other frames may follow at once.

        `token` is what the connection of the instance's watchdog began with; empty: there is none.
        """
        version = wire.PROTOCOL_VERSION
        fields = (version, credential, gateway, partitions, app_url, token)
        self.send(wire.pack(FrameType.HELLO, 0, *fields))

    def request(
        self, sink: HttpSink, fields: RequestFields, deadline_ms: int, chunk: bytes, more: bool
    ) -> HttpSlot:
        """Send an HTTP invocation with its first body bytes.

        Raises:
            WireError: the fields do not fit into a frame; nothing was sent.
        """
        self._last_id = slot_id = self._last_id + 1
        self.send(wire.pack_plain(_REQUEST, slot_id, *fields, deadline_ms, more, body=chunk))
        self._http[slot_id] = slot = HttpSlot(slot_id, self, sink)
        if chunk:
            slot.send_credit -= len(chunk)
        return slot

    def invoke(
        self,
        sink: AnswerSink,
        fields: tuple[str, dict[str, Any], bytes],
        subject: Subject | None = None,
    ) -> AnswerSlot:
        """Send a turn, a step or a reveal.

        Raises:
            WireError: the fields do not fit into a frame; nothing was sent.
        """
        self._last_id = slot_id = self._last_id + 1
        kind, meta, body = fields
        self.send(wire.pack(FrameType.INVOKE, slot_id, kind, meta, body=body))
        self._answers[slot_id] = slot = AnswerSlot(slot_id, self, sink, subject)
        return slot

    def forget(self, run_ids: list[str]) -> None:
        """Hint that these live runs will not be asked for again."""
        self.send(wire.pack(FrameType.FORGET, 0, run_ids))

    def keep(self, *, wanted: bool) -> None:
        """Tell the instance whether to stay when it is idle."""
        self.send(wire.pack(FrameType.KEEP, 0, wanted))

    def take_back(self, claimed: int, reason: str) -> None:
        """Send back what has a greater id than `claimed`: it will not be started there.

        Raises:
            WireError: one of them has been started.
        """
        slots: list[HttpSlot | AnswerSlot] = []
        for table in (self._http, self._answers):
            slots += [slot for slot in table.values() if slot.id > claimed]
        for slot in slots:
            if not slot.may_nack:
                raise WireError(f"{slot.id} was started and is revoked")
        self.send(wire.pack(FrameType.RESUME, 0, self._last_id))
        for slot in sorted(slots, key=lambda slot: slot.id, reverse=True):  # each goes to the front
            self._http.pop(slot.id, None)
            self._answers.pop(slot.id, None)
            self._taken_back.add(slot.id)
            slot.sink.nacked(reason)

    def send(self, frame: bytes) -> None:
        """Write a frame at the end of this turn of the event loop."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)

    @property
    def unread_bytes(self) -> int:
        """How much was sent that the instance has not taken yet."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return buffered + self._outbox_bytes

    def hang_up(self) -> None:
        """Close a connection that nobody needs: an instance that retires waits for it."""
        if self._closing is None and self._transport is not None and not self._calls.under_way:
            if self._outbox:
                self._flush()
            self._closing = "nothing more to do"
            self._transport.close()

    def close(self, reason: str) -> None:
        """Close the connection at once; the owner and the slots hear of it as of any loss."""
        if self._closing is None:
            self._closing = reason
            self._owner.link_draining(reason)
            if self._transport is not None:
                self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for header, body in self._reader.feed(data):
                if self._closing is not None:
                    break
                known = self._handlers.get(header[0])
                if known is None or len(header) < known[1]:
                    raise WireError(f"frame type {header[0]} is unknown here or lacks fields")
                known[0](header, body)
        except WireError as error:
            logger.warning("an instance broke the protocol", extra={"reason": str(error)})
            self.close(f"protocol violation: {error}")

    def eof_received(self) -> None:
        """Let the transport close: the end of the stream is the instance's death."""

    def connection_lost(self, exc: Exception | None) -> None:
        reason = self._closing or (f"{LINK_LOST}: {exc}" if exc else LINK_LOST)
        self._closing = reason
        self._calls.close()
        self._owner.link_lost(reason)
        sinks: list[HttpSink | AnswerSink] = [slot.sink for slot in self._http.values()]
        sinks += [slot.sink for slot in self._answers.values()]
        self._http.clear()
        self._answers.clear()
        for sink in sinks:
            sink.lost(reason)

    # Frames

    def _flush(self) -> None:
        frames, self._outbox = self._outbox, []
        self._outbox_bytes = 0
        if frames and self._transport is not None and self._closing is None:
            self._transport.writelines(frames)

    def _on_response(self, header: list[Any], body: bytes) -> None:
        self._http_slot(header).on_response(header, body)

    def _on_response_body(self, header: list[Any], body: bytes) -> None:
        self._http_slot(header).on_response_body(header[2] is True, body)

    def _on_finished(self, header: list[Any], body: bytes) -> None:
        if self._taken_back and self._is_late_end(header[1]):
            return
        slot = self._http_slot(header)
        cpu_us, outcome = _natural(header[2]), _text(header[3])
        del self._http[slot.id]
        slot.sink.finished(cpu_us, outcome)

    def _on_answer(self, header: list[Any], body: bytes) -> None:
        if self._taken_back and self._is_late_end(header[1]):
            return
        slot = self._answers.get(header[1])
        outcome, meta, cpu_us = _text(header[2]), header[3], _natural(header[4])
        if slot is None or not isinstance(meta, dict):
            raise WireError(f"an answer to {header[1]}, which is not awaited")
        del self._answers[slot.id]
        slot.sink.answered(outcome, cast("dict[str, Any]", meta), cpu_us, body)

    def _on_heartbeat(self, header: list[Any], body: bytes) -> None:
        slot = self._answers.get(header[1])
        if slot is not None:
            slot.sink.heartbeat(body)
        elif not 0 < header[1] <= self._last_id:  # else it crossed the answer, or a loss
            raise WireError(f"a heartbeat of {header[1]}, which never was")

    def _on_nack(self, header: list[Any], body: bytes) -> None:
        if self._taken_back and self._is_late_end(header[1]):
            return
        reason = _text(header[2])
        slot = self._answers.get(header[1]) or self._http.get(header[1])
        if slot is None or not slot.may_nack:
            raise WireError(f"a nack for {header[1]}, which is not awaited or was started")
        self._answers.pop(slot.id, None)
        self._http.pop(slot.id, None)
        slot.sink.nacked(reason)

    def _on_broken(self, header: list[Any], body: bytes) -> None:
        self._http_slot(header).on_broken(_text(header[2]))

    def _on_credit(self, header: list[Any], body: bytes) -> None:
        slot = self._http.get(header[1])
        if slot is not None:
            slot.on_credit(_natural(header[2]))
        elif not 0 < header[1] <= self._last_id:
            raise WireError(f"credit for {header[1]}, which never was")

    def _on_call(self, header: list[Any], body: bytes) -> None:
        slot = self._answers.get(_natural(header[2]))
        self._calls.on_call(self, header, body, None if slot is None else slot.subject)

    def _on_welcome(self, header: list[Any], body: bytes) -> None:
        if header[2] != wire.PROTOCOL_VERSION or self._welcomed:
            raise WireError(f"welcome with version {header[2]}, or twice")
        self._welcomed = True
        import_ms = _natural(header[5]) if len(header) > 5 else 0
        self._owner.link_ready(max(1, _natural(header[4])), import_ms / 1000)

    def _on_goaway(self, header: list[Any], body: bytes) -> None:
        self._owner.link_draining(_text(header[2]))

    def _is_late_end(self, slot_id: int) -> bool:
        """Say whether this is the end of what was taken back before."""
        if slot_id not in self._taken_back:
            return False
        self._taken_back.remove(slot_id)
        return True

    def _http_slot(self, header: list[Any]) -> HttpSlot:
        slot = self._http.get(header[1])
        if slot is None:
            raise WireError(f"a response to {header[1]}, which is not awaited")
        return slot


def _natural(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise WireError(f"{value!r} where a natural number belongs")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value) > 1024:
        raise WireError("a short text is missing")
    return value
