"""One pipelined connection to a server of the Redis protocol.

Invariants:
1.  Replies come in the order of the commands, so `_sent` is a queue: its first call gets the next
    reply. A caller that was cancelled stays in it; its reply is read and dropped.
2.  Commands of one turn of the event loop leave in one write.
3.  When the connection ends, a call that was never written goes back to `lost_calls`: nothing
    happened. One that was written has an unknown outcome if it writes, else is just unavailable.
4.  While calls are outstanding, silence for `reply_seconds` ends the connection. An idle
    connection has no timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from fluvial_queue.contract import OutcomeUnknownError, StoreError, StoreUnavailableError
from fluvial_queue.redis.replies import error_of, suggests_other_primary

_INCOMPLETE: Final = object()


class Call:
    """A packed command and the future of its reply."""

    __slots__ = ("future", "packed", "writes")

    def __init__(self, packed: bytes, writes: bool, future: asyncio.Future[Any]) -> None:
        self.packed = packed
        self.writes = writes
        self.future = future

    def fail(self, error: StoreError) -> None:
        """Give the caller an error, if there still is a caller."""
        if not self.future.done():
            self.future.set_exception(error)


class Wire(asyncio.Protocol):
    """A live connection; made by `Link`, which replaces it when it is lost."""

    def __init__(
        self,
        *,
        reply_seconds: float,
        on_lost: Callable[[Wire], None],
        on_push: Callable[[Any], None] | None = None,
    ) -> None:
        """`on_push` takes what comes without having been asked for (a subscription's messages)."""
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._unsent: list[Call] = []
        self._sent: deque[Call] = deque()
        self._reply_seconds = reply_seconds
        self._heard_at = 0.0
        self._watchdog: asyncio.TimerHandle | None = None
        self._on_lost = on_lost
        self._on_push = on_push
        self._is_retiring = False
        self.closed = self._loop.create_future()
        self.lost_calls: list[Call] = []

    @property
    def outstanding(self) -> int:
        """How many calls wait for a reply."""
        return len(self._sent) + len(self._unsent)

    def send(self, call: Call) -> None:
        """Write a command at the end of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(call)

    def close(self) -> None:
        """Close the connection; what is outstanding fails."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection now."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        calls = self._unsent
        if not calls or self._transport is None or self._transport.is_closing():
            return
        self._unsent = []
        if not self._sent:
            self._heard_at = self._loop.time()
            self._watch()
        self._sent.extend(calls)
        packed = calls[0].packed if len(calls) == 1 else b"".join([c.packed for c in calls])
        self._transport.write(packed)

    # ---- asyncio.Protocol ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        reader, sent = self._reader, self._sent
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not _INCOMPLETE:
                if not sent and self._on_push is not None:
                    self._on_push(reply)
                    continue
                call = sent.popleft()
                if not call.future.done():
                    self._settle(call, reply)
        except (hiredis.ProtocolError, IndexError):  # garbage, or a reply that nobody asked for
            self.abort()
        if self._is_retiring and not self.outstanding:
            self.close()

    def _settle(self, call: Call, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError):
            self._is_retiring = self._is_retiring or suggests_other_primary(reply)
            call.future.set_exception(error_of(reply))
        else:
            call.future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        reason = str(exc or "closed")
        for call in self._sent:
            if call.writes:
                call.fail(OutcomeUnknownError(f"the store's connection broke: {reason}"))
            else:
                call.fail(StoreUnavailableError(f"the store's connection broke: {reason}"))
        self._sent.clear()
        self.lost_calls = [call for call in self._unsent if not call.future.done()]
        self._unsent = []
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(None)
        self._on_lost(self)

    # ---- silence ----

    def _watch(self) -> None:
        if self._watchdog is None:
            self._watchdog = self._loop.call_later(self._reply_seconds, self._check_silence)

    def _check_silence(self) -> None:
        self._watchdog = None
        if not self._sent:
            return
        left = self._heard_at + self._reply_seconds - self._loop.time()
        if left <= 0:
            self.abort()
        else:
            self._watchdog = self._loop.call_later(left, self._check_silence)
