"""One client connection of the data plane: HTTP/1.1 in, invocations out, and back.

Invariants:

1. Responses leave in the order of their requests: the next request is looked at when the response
   before it is complete. What a client pipelines meanwhile is held, bounded, then not read.
2. Where the framing of a request is in doubt, nothing after it is interpreted: the answer says
   `connection: close`, and what still comes is thrown away unread.
3. A response that cannot be completed breaks the connection; it never looks complete.
4. A connection always has a deadline: for the head, the body, its idleness, a client that does not
   read, and its last words. While only the function is awaited, the invocation's own counts.
"""

from __future__ import annotations

import asyncio
import logging

from fluvial.errors import WireError
from fluvial_gateway.deadlines import NEVER
from fluvial_gateway.http_bodies import Body, ChunkedBody, LengthBody
from fluvial_gateway.http_choices import choose
from fluvial_gateway.http_exchanges import HttpExchange
from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_heads import (
    HeaderBlock,
    RequestLine,
    check_partial,
    origin_target,
    parse_headers,
    parse_line,
)
from fluvial_gateway.http_invocations import BACKLOG_BYTES, HttpClient
from fluvial_gateway.http_peers import Peer
from fluvial_gateway.http_problems import (
    BAD_RESPONSE,
    TOO_MANY_CONNECTIONS,
    UNKNOWN_HOST,
    Problem,
    RefusedRequestError,
    outcome_problem,
)
from fluvial_gateway.http_responses import (
    CLOSE,
    CONTINUE,
    KEEP_ALIVE,
    invocation_lines,
    problem_response,
    request_id_line,
)
from fluvial_gateway.http_transport import ClientTransport
from fluvial_gateway.http_upgrades import SWITCHING_PROTOCOLS, check_handshake, switching_head
from fluvial_gateway.http_writer import ResponseWriter
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.tunnels import Tunnel
from fluvial_gateway.webhook_exchanges import RESERVED_PATH
from fluvial_gateway.websocket_invocations import WebSocketInvocation

logger = logging.getLogger(__name__)

_COPIED_BYTES = 4096  # below this, one buffer is cheaper to write than two
_DISCONNECTED = "the client disconnected"
_BEHIND_DOTS = b"//"  # sorts behind "/.": one cheap comparison is enough for nearly all paths
_NO_HEADERS = HeaderBlock(b"-", True)  # no block equals it: they are empty or end with a line end


class HttpConnection(ClientTransport):
    """One client; give it an `HttpFront`, e.g. `create_server(lambda: HttpConnection(front))`."""

    def __init__(self, front: HttpFront) -> None:
        super().__init__(front)
        self._peer: Peer | None = None
        self._buffer = b""  # received and not interpreted yet
        self._scanned = 0  # of the buffer, in search for the end of a head
        self._in_head = True  # the deadline of a head runs: a fresh connection has to begin at once
        self._advancing = False
        self._body: Body | None = None  # the request's, while it arrives
        self._body_deadline = NEVER
        self._line: RequestLine | None = None  # from a request's head to its response's end
        self._headers = _NO_HEADERS  # of this request, or of the one before
        self._awaits_continue = False
        self._invocation: HttpExchange | None = None
        self._invocation_id: str | None = None
        self._writer: ResponseWriter | None = None  # from a response's head to its end
        self._tail = b"\r\n"  # how the head of this response ends
        self._keep_alive = True
        self._ungranted = 0  # response bytes that the client has not taken yet

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peer = Peer(transport, self._front)
        within_limit = self._front.opened(self)
        self._read_within(self._limits.header_seconds)
        if not within_limit:
            self._refuse(TOO_MANY_CONNECTIONS)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            self._discard(len(data))
        else:
            self._advance(self._buffer + data if self._buffer else data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._front.closed(self)
        self._drop_invocation(_DISCONNECTED)

    def resume_writing(self) -> None:
        super().resume_writing()
        ungranted, self._ungranted = self._ungranted, 0
        if ungranted and self._invocation is not None:
            self._invocation.consumed(ungranted)

    # For the listener and its deadlines

    def shutdown(self) -> None:
        """Close when idle; else finish what is under way and close then."""
        self._keep_alive = False
        if self._line is None and not self._buffer and self._body is None and not self._closing:
            self._end()

    def expired(self) -> None:
        """Close because the client was too slow, with an explanation where one can be given."""
        if self._looks_after_paused():
            return
        waits_for_head = self._line is None and self._body is None
        if self._closing or self._writer is not None or self._write_deadline < NEVER:
            self.abort()
        elif waits_for_head and not self._buffer:
            self._end()
        else:
            part = "head" if waits_for_head else "body"
            detail = f"the {part} came too slowly"
            self._refuse(Problem(status=408, code="request_timeout", detail=detail))

    # Requests

    def _advance(self, data: bytes) -> None:
        """Interpret `data` as far as possible and keep the rest."""
        self._advancing = True
        self._buffer = b""
        try:
            while data and not self._closing:
                if self._body is not None:
                    rest = self._take_body(self._body, data)
                elif self._line is not None:
                    break
                else:
                    taken = self._take_head(data)
                    if taken is None:
                        break
                    rest = taken
                data = rest
        except RefusedRequestError as error:
            self._refuse(error.problem)
        finally:
            self._advancing = False
        if not self._closing:
            self._buffer = data
            if data or self._body is not None:
                self._update_reading()

    def _take_head(self, data: bytes) -> bytes | None:
        """Begin the request at the start of `data`; return what follows, None if it has no end."""
        if data[:2] == b"\r\n":  # an empty line before a request is to be ignored (RFC 9112 2.2)
            data = data[2:]
            self._scanned = 0
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            if data not in (b"", b"\r"):
                check_partial(data, self._scanned, self._limits)
                if not self._in_head:
                    self._in_head = True
                    self._read_within(self._limits.header_seconds)
            self._scanned = len(data)
            return None
        self._scanned = 0
        self._keep_alive = False  # should it be refused before more is known
        line = self._line = parse_line(data, self._limits)
        raw = data[line.end : end + 2]
        headers = self._headers
        if raw != headers.raw or line.is_1_1 is not headers.is_1_1:
            headers = self._read_headers(raw, line.is_1_1)
        return self._begin(line, headers, data[end + 4 :])

    def _read_headers(self, raw: bytes, is_1_1: bool) -> HeaderBlock:
        headers = self._headers = parse_headers(raw, self._limits, is_1_1=is_1_1)
        if self._peer is not None:
            self._peer.introduce(headers)
        return headers

    def _begin(self, line: RequestLine, headers: HeaderBlock, rest: bytes) -> bytes:
        front = self._front
        now = front.clock()
        target = origin_target(line.target, headers.host)
        self._keep_alive = headers.keep_alive and not front.draining
        chunk, more, scheme = b"", False, headers.scheme
        if headers.is_websocket:
            scheme, more = check_handshake(line, headers), True
            self._read_deadline = self.deadline = NEVER
        elif headers.chunked or headers.content_length:
            chunk, more, rest = self._begin_body(headers, rest, now)
        else:
            self._read_deadline = self.deadline = NEVER
        hosts = front.hosts
        destination = hosts.find(headers.host) if headers.host is not None else hosts.default
        if destination is None:
            self._respond(UNKNOWN_HOST)
            return rest
        client: HttpClient = self
        if headers.is_marked or destination.split is not None:
            destination, client = choose(destination, headers, self)
        self._tail = destination.tail
        invocation_id = self._invocation_id = front.ids.new(now)
        fields = (
            invocation_id,
            line.method,
            target,
            headers.headers,
            headers.client,
            scheme,
            "1.1" if line.is_1_1 else "1.0",
        )
        invocation: HttpExchange
        if (
            target < _BEHIND_DOTS
            and target.startswith(RESERVED_PATH)
            and front.webhooks is not None
        ):
            more = more and not headers.is_websocket  # a webhook is never one
            self._tail = b"\r\n"  # no deployment answers
            invocation = front.webhooks.exchange(destination.app, self, fields)
        else:
            invocation = front.router.http(
                destination.deployment, destination.app, client, fields, now
            )
        self._invocation = invocation
        invocation.open(chunk, more=more)
        return rest

    def _begin_body(
        self, headers: HeaderBlock, rest: bytes, now: float
    ) -> tuple[bytes, bool, bytes]:
        """Return the body's first bytes, whether more are to come, and what follows the body."""
        body: Body = (
            ChunkedBody(self._limits) if headers.chunked else LengthBody(headers.content_length)
        )
        chunk, after = body.feed(rest) if rest else (b"", None)
        if after is not None:
            self._read_deadline = self.deadline = NEVER
            return chunk, False, after
        self._body = body
        self._awaits_continue = headers.expects_continue
        self._body_deadline = now + self._limits.body_seconds
        self._await_body(now)
        return chunk, True, b""

    def _take_body(self, body: Body, data: bytes) -> bytes:
        chunk, rest = body.feed(data)
        if rest is None:
            self._await_body(self._front.clock())
        else:
            self._body = None
            self._read_deadline = NEVER
            self._set_deadline()
        if self._invocation is not None:
            self._invocation.feed(chunk, more=rest is None)
        else:
            self._discard(len(chunk))
            if rest is not None:
                self._await_request()
        return rest or b""

    # HttpClient: what the invocation tells

    def invocation_placed(self) -> None:
        if self._body is not None:
            if self._awaits_continue:
                self._awaits_continue = False
                self._transport.write(CONTINUE)
            self._update_reading()

    def request_credited(self) -> None:
        self._update_reading()

    def response_started(
        self, status: int, framing: int, head: bytes, chunk: bytes, more: bool
    ) -> None:
        line, invocation, front = self._line, self._invocation, self._front
        if line is None or invocation is None:
            raise RuntimeError("a response came without its request")
        try:
            if status == SWITCHING_PROTOCOLS:
                self._switch(head, chunk, more, invocation)
                return
            checked = front.heads.check(head, status)
            writer = ResponseWriter(line, checked, framing, self._keep_alive)
            first = writer.go_on(chunk, more)
        except WireError as error:
            logger.warning("a bad response", extra={"reason": str(error)})
            self._drop_invocation("bad response")
            self._respond(BAD_RESPONSE)
            return
        self._writer = writer
        self._keep_alive = writer.keep_alive
        date = b"" if checked.has_date else front.date.line()
        lines = invocation_lines(invocation.id, *invocation.timing())
        if not checked.has_request_id:
            lines += request_id_line(self._headers.request_id, invocation.id)
        prefix = b"".join((head, date, writer.lines, lines, self._tail))
        if len(first) < _COPIED_BYTES:
            self._transport.write(prefix + first)
        else:
            self._transport.writelines((prefix, first))
        if more:
            self._written(len(chunk))
        else:
            self._response_done()

    def _switch(self, head: bytes, chunk: bytes, more: bool, invocation: HttpExchange) -> None:
        """Answer that the protocol is another one now, and leave the connection to a tunnel.

        Raises:
            WireError: nobody has asked for that, or the head is malformed.
        """
        if not self._headers.is_websocket or not isinstance(invocation, WebSocketInvocation):
            raise WireError("status 101 where no WebSocket was asked for")
        lines = switching_head(head, self._headers)
        lines += invocation_lines(invocation.id, *invocation.timing())
        lines += request_id_line(self._headers.request_id, invocation.id)
        self._transport.write(b"%b%b%b" % (lines, self._front.date.line(), self._tail))
        received, self._buffer = self._buffer, b""
        self._invocation = None
        self._closing = True
        tunnel = Tunnel(self._front, self._transport, invocation)
        if self._write_deadline < NEVER:
            tunnel.pause_writing()
        tunnel.take_over(received, is_reading=self._reading)
        self._front.closed(self)
        tunnel.response_continued(chunk, more)

    def response_continued(self, chunk: bytes, more: bool) -> None:
        if self._writer is None:
            raise RuntimeError("a response goes on that has not begun")
        try:
            data = self._writer.go_on(chunk, more)
        except WireError as error:
            logger.warning("a bad response", extra={"reason": str(error)})
            self._drop_invocation("bad response")
            self._break()
            return
        if data:
            self._transport.write(data)
        if more:
            self._written(len(chunk))
        else:
            self._response_done()

    def response_refused(self, problem: Problem) -> None:
        self._invocation = None
        self._respond(problem)

    def response_failed(self, reason: Unavailable) -> None:
        self._invocation = None
        if self._writer is None:
            self._respond(outcome_problem(reason))
        else:
            self._break()

    def _written(self, size: int) -> None:
        if self._write_deadline < NEVER:
            self._ungranted += size
        elif self._invocation is not None:
            self._invocation.consumed(size)

    # Ends of responses and of the connection

    def _respond(self, problem: Problem) -> None:
        """Answer the request with a problem."""
        line = self._line
        if self._awaits_continue:
            self._keep_alive = False  # whether the body comes after this answer, nobody can know
        is_1_1 = line is None or line.is_1_1
        connection = CLOSE if not self._keep_alive else b"" if is_1_1 else KEEP_ALIVE
        self._transport.write(
            problem_response(
                problem,
                invocation=self._invocation_id,
                request_id=self._headers.request_id if self._invocation_id else None,
                date=self._front.date.line(),
                connection=connection,
                head_only=line is not None and line.method == "HEAD",
            )
        )
        self._response_done()

    def _refuse(self, problem: Problem) -> None:
        """Answer, if an answer is still possible, and close: the input makes no sense any more."""
        self._keep_alive = False
        self._drop_invocation(problem.code)
        if self._writer is not None:
            self._break()
        else:
            self._respond(problem)

    def _drop_invocation(self, reason: str) -> None:
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            invocation.detach(reason)

    def _response_done(self) -> None:
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            invocation.detach()
        self._line = None
        self._writer = None
        self._awaits_continue = False
        self._invocation_id = None
        self._ungranted = 0
        if not self._keep_alive:
            self._end()
            return
        if self._body is not None:
            self._discarded = 0
            self._await_body(self._front.clock())
        else:
            self._await_request()
        if not self._reading:
            self._update_reading()
        if self._buffer and not self._advancing:
            self._advance(self._buffer)

    def _end(self) -> None:
        in_doubt = self._body is not None or bool(self._buffer) or self._advancing
        self._close(client_is_sending=in_doubt)

    # Deadlines and back-pressure

    def _await_request(self) -> None:
        self._in_head = False
        self._read_deadline = self._front.clock() + self._limits.keep_alive_seconds
        self._set_deadline()

    def _await_body(self, now: float) -> None:
        self._read_deadline = min(now + self._limits.body_idle_seconds, self._body_deadline)
        self._set_deadline()

    def _update_reading(self) -> None:
        """Read the client only while there is room for what it sends."""
        invocation = self._invocation
        full = len(self._buffer) >= self._limits.pipelined_bytes and self._line is not None
        if full or (invocation is not None and invocation.backlog >= BACKLOG_BYTES):
            self._pause_reading()
        elif not self._reading:
            self._resume_reading()
            if self._body is not None:
                self._await_body(self._front.clock())
            elif self._line is not None:
                self._read_deadline = NEVER
                self._set_deadline()
