"""ASGI 3 over frames: one `HttpInvocation` is the scope, `receive` and `send` of one request.

The common case is lean: the whole request came in one frame, and the app answers with one body
event, so head and body leave in one frame without waiting for anything. Everything else (chunks,
credit, disconnects) is beside that path.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from fluvial.context import Invocation as Description
from fluvial.trace_context import child_traceparent
from fluvial.wire import CHUNK_BYTES, FrameType, Framing, pack, pack_plain
from fluvial_invoker.instance.background import BackgroundWork, Work
from fluvial_invoker.instance.credit import DISCONNECT_GRACE_SECONDS, CreditedInvocation
from fluvial_invoker.instance.invocations import (
    CANCELLED_BY_DRAIN,
    CANCELLED_BY_TIMEOUT,
    OUTCOME_CANCELLED,
    OUTCOME_ERROR,
    OUTCOME_OK,
    OUTCOME_TIMEOUT,
    Link,
)
from fluvial_invoker.instance.metering import Subject
from fluvial_invoker.instance.output import report, report_exception
from fluvial_invoker.instance.response_heads import (
    InvalidResponseError,
    has_no_body,
    length_header,
    serialise_head,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_RESPONSE: Final = int(FrameType.RESPONSE)
_RESPONSE_BODY: Final = int(FrameType.RESPONSE_BODY)
_BROKEN: Final = int(FrameType.BROKEN)
_LENGTH: Final = int(Framing.LENGTH)
_STREAM: Final = int(Framing.STREAM)
_NONE: Final = int(Framing.NONE)

# How far the response has come.
_NOTHING: Final = 0
_STARTED: Final = 1  # `http.response.start` was given, the head has not left yet
_STREAMING: Final = 2  # the head has left
_COMPLETE: Final = 3

_ASGI_VERSIONS: Final = {"version": "3.0", "spec_version": "2.4"}
_SERVER_ERROR: Final = b"Internal Server Error"
_REQUEST_ID: Final = b"x-request-id"
_CONTEXT_HEADERS: Final = frozenset({_REQUEST_ID, b"traceparent", b"tracestate"})


class HttpInvocation(CreditedInvocation):
    """One HTTP request, as an ASGI app sees it."""

    __slots__ = (
        "_app",
        "_background",
        "_chunks",
        "_client_left",
        "_head",
        "_is_listening",
        "_left",
        "_length",
        "_method",
        "_no_body",
        "_read_changed",
        "_response",
        "_state",
        "_status",
    )

    def __init__(
        self,
        header: list[Any],
        body: bytes,
        link: Link,
        *,
        app: AsgiApp,
        state: dict[str, Any] | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(header, len(body), link, loop)
        self._app = app
        self._state = state
        self._method: str = header[3]
        self._chunks: deque[bytes] = deque((body,)) if body or not self._more else deque()
        self._is_listening = False
        self._response = _NOTHING
        self._status = 0
        self._head = b""
        self._length: int | None = None  # what Content-Length says
        self._left: int | None = None  # of it, not sent yet
        self._no_body = False
        self._read_changed: asyncio.Event | None = None
        self._background: BackgroundWork | None = None
        self._client_left = False

    def subject(self) -> Subject:
        return "http", "http", None, None

    def ending(self) -> tuple[str, dict[str, Any]]:
        # Not the query: secrets stand there.
        path = self._request[4].partition(b"?")[0].decode("latin-1")
        return self._outcome or OUTCOME_ERROR, {
            "method": self._method,
            "path": path,
            "status": self._status,
        }

    async def run_body(self) -> None:
        try:
            await self._serve()
        except BaseException as error:
            if self._background is not None:
                self._outcome = self._settle(error)
                await self._go_on(self._background)
            raise
        if self._background is not None:
            await self._go_on(self._background)

    async def _serve(self) -> None:
        await self._app(self._scope(), self.receive, self.send)

    async def _go_on(self, background: BackgroundWork) -> None:
        """The client has its answer: wait for what else there is to do."""
        if self._outcome is None:
            self._outcome = self._settle(None)
        if self.stopped is not None and not self._client_left:
            background.cancel()
        await background.drain()

    def wait_until(self, work: Work) -> None:
        """Keep the instance until `work` has ended; see `fluvial.wait_until`."""
        if self._background is None:
            self._background = BackgroundWork(self, self._loop)
        self._background.add(work)

    def describe(self) -> Description:
        headers = self._request[5]
        found = {name: value for name, value in headers if name in _CONTEXT_HEADERS}
        identity = self.id or ""
        return replace(
            super().describe(),
            request_id=found.get(_REQUEST_ID, b"").decode("latin-1") or identity,
            traceparent=child_traceparent(
                found.get(b"traceparent", b"").decode("latin-1"), identity
            ),
            tracestate=found.get(b"tracestate", b"").decode("latin-1"),
        )

    def is_stopped(self) -> bool:
        return self._gone or super().is_stopped()

    def _scope(self) -> dict[str, Any]:
        _, _, _, method, target, headers, client, scheme, http_version, *_ = self._request
        if not headers or headers[-1][0] != _REQUEST_ID:  # the gateway puts the client's own last
            headers.append((_REQUEST_ID, (self.id or "").encode()))
        path, _, query = target.partition(b"?")
        text: str = path.decode("utf-8", "replace")
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": _ASGI_VERSIONS,
            "http_version": http_version,
            "method": method,
            "scheme": scheme,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": tuple(client) if client else None,
            "server": None,
        }
        if self._state is not None:
            scope["state"] = self._state.copy()
        return scope

    # The request's body

    def _take(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._wake_readers()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        while True:
            if self._gone or self._response == _COMPLETE:
                return {"type": "http.disconnect"}
            if self._chunks:
                return self._next_chunk()
            if self._read_changed is None:
                self._read_changed = asyncio.Event()
            self._is_listening = not self._more
            await self._read_changed.wait()

    def _next_chunk(self) -> Message:
        chunk = self._chunks.popleft()
        if self._more:
            self._taken(len(chunk))
        return {
            "type": "http.request",
            "body": chunk,
            "more_body": self._more or bool(self._chunks),
        }

    def _wake_readers(self) -> None:
        if self._read_changed is not None:
            self._read_changed.set()
            self._read_changed = None

    # The response

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        kind = message["type"]
        if kind == "http.response.body":
            body: bytes = message.get("body", b"")
            more: bool = message.get("more_body", False)
            self._check_body(body, more=more)
            if len(body) <= self._credit and len(body) <= CHUNK_BYTES and not self._gone:
                self._write_chunk(body, more=more)
                if self.link.is_congested:
                    await self.link.wait_until_writable()
            else:
                await self._send_slowly(body, more=more)
        elif kind == "http.response.start":
            self._start(message)
        else:
            raise InvalidResponseError(f"unknown ASGI message {kind!r}")

    def _start(self, message: Message) -> None:
        if self._response != _NOTHING:
            raise InvalidResponseError("http.response.start was sent twice")
        self._status = message["status"]
        self._head, self._length = serialise_head(self._status, message.get("headers", ()))
        self._no_body = has_no_body(self._status, self._method)
        self._left = None if self._no_body else self._length
        self._response = _STARTED
        self.pending_head = True

    def _check_body(self, body: bytes, *, more: bool) -> None:
        if self._response == _NOTHING:
            raise InvalidResponseError("http.response.body came before http.response.start")
        if self._response == _COMPLETE:
            raise InvalidResponseError("http.response.body came after the end of the body")
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise InvalidResponseError(
                    f"the body does not have the {self._length} bytes that content-length says"
                )

    def _write_chunk(self, chunk: bytes, *, more: bool) -> None:
        if self._no_body:
            chunk = b""
        if self.pending_head:
            self._write_head(chunk, more=more)
        elif chunk or not more:
            self._credit -= len(chunk)
            self.link.write(pack_plain(_RESPONSE_BODY, self.conversation, more, body=chunk))
        if not more:
            self._response = _COMPLETE
            self._wake_readers()

    def _write_head(self, chunk: bytes, *, more: bool) -> None:
        head = self._head
        framing = _LENGTH
        if self._no_body:
            framing = _NONE
        elif self._length is None:
            if more:
                framing = _STREAM
            else:
                head += length_header(len(chunk))
        self.pending_head = False
        self._response = _STREAMING
        self._credit -= len(head) + len(chunk)
        self.link.write(
            pack_plain(
                _RESPONSE,
                self.conversation,
                self._status,
                len(head),
                framing,
                more,
                body=head + chunk,
            )
        )

    def flush_head(self) -> None:
        """The app started a response and waits for something: let the client see the head."""
        if not self._gone:
            self._write_head(b"", more=True)

    async def _send_slowly(self, body: bytes, *, more: bool) -> None:
        """Send what is larger than a frame or the credit, piece by piece."""
        if self._no_body:
            body = b""
        elif self.pending_head and not more and self._length is None:
            # All of the body is known, so its length is too.
            self._head += length_header(len(body))
            self._length = len(body)
        offset = 0
        while True:
            await self._wait_for_credit()
            chunk = body[offset : offset + min(CHUNK_BYTES, self._credit)]
            offset += len(chunk)
            self._write_chunk(chunk, more=more or offset < len(body))
            if offset >= len(body):
                return

    # The end

    def cancel(self, reason: str = "") -> None:
        """Give an app that listens for the disconnect a moment; cancel any other now."""
        self._client_left = reason not in (CANCELLED_BY_DRAIN, CANCELLED_BY_TIMEOUT)
        if reason == CANCELLED_BY_TIMEOUT:
            self.expire()
        elif self._is_listening and not self._gone:
            self._cancel_softly()
        elif self._client_left:
            self._stop_app(OUTCOME_CANCELLED)
        else:
            self.stop(OUTCOME_CANCELLED)

    def stop(self, outcome: str) -> None:
        self._client_left = False
        if self._background is not None:
            self._background.cancel()
        self._stop_app(outcome)

    def _stop_app(self, outcome: str) -> None:
        """End the app, and not what it has left for after it."""
        super().stop(outcome)

    def _cancel_softly(self) -> None:
        """Tell the app that the client is gone, and give it a moment to end by itself."""
        self.stopped = self.stopped or OUTCOME_CANCELLED
        self.disconnect()
        self._loop.call_later(DISCONNECT_GRACE_SECONDS, self._cancel_app)

    def _cancel_app(self) -> None:
        if self.task is not None and self._outcome is None:
            self.task.cancel()

    def disconnect(self) -> None:
        self._chunks.clear()
        super().disconnect()
        self._wake_readers()

    def answer(self, error: BaseException | None) -> None:
        self.finish(self._outcome or self._settle(error))

    def _settle(self, error: BaseException | None) -> str:
        """Complete what the app did not, as far as possible; return the outcome."""
        outcome = OUTCOME_OK if self._response == _COMPLETE and error is None else OUTCOME_ERROR
        if self.stopped is not None and self._response != _COMPLETE:
            outcome = self.stopped
            if outcome == OUTCOME_TIMEOUT:
                report(f"{self._line} took longer than max_duration, and was cancelled", self)
        elif error is not None:
            report_exception(error, self, f"{self._line} failed")
        elif self._response != _COMPLETE:
            report("the app returned without completing its response", self)
        if self._response != _COMPLETE and self.stopped != OUTCOME_CANCELLED:
            self._give_up(outcome)
        return outcome

    @property
    def _line(self) -> str:
        path = self._request[4].partition(b"?")[0].decode("latin-1")
        return f"{self._method} {path}"

    def _give_up(self, outcome: str) -> None:
        """Answer for an app that did not: a 500, or a broken connection if it is too late."""
        if self._response == _STREAMING:
            self.link.write(pack(_BROKEN, self.conversation, outcome))
        elif outcome == OUTCOME_ERROR:
            self._status = 500
            self._no_body = self._method == "HEAD"
            self._length = None
            headers = ((b"content-type", b"text/plain; charset=utf-8"),)
            self._head, _ = serialise_head(500, headers)
            self._write_head(b"" if self._no_body else _SERVER_ERROR, more=False)
