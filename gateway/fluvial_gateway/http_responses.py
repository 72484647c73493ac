"""Response heads: what an instance serialised, checked, and what we add to it.

The head comes from a process that runs user code, and behind a shared proxy its bytes could reach
somebody else's client: it must be well-formed, and only we say how a body is delimited.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple

from fluvial.errors import WireError
from fluvial_gateway.cold_starts import ColdStart
from fluvial_gateway.http_problems import Problem

KEEP_ALIVE: Final = b"connection: keep-alive\r\n"
CLOSE: Final = b"connection: close\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*+\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+"
)
_RESERVED: Final = re.compile(
    rb"\n(?:connection|keep-alive|transfer-encoding|upgrade|trailer|proxy-connection|x-fluvial-[^:]*+)"
    rb"[ \t]*+:",
    re.IGNORECASE,
)
_LENGTH: Final = re.compile(rb"\ncontent-length:[ \t]*+([^\r]*+)\r", re.IGNORECASE)
_DATE: Final = re.compile(rb"\ndate:", re.IGNORECASE)
_REQUEST_ID: Final = re.compile(rb"\nx-request-id:", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_MAX_REMEMBERED: Final = 1024
_MAX_REMEMBERED_BYTES: Final = 1024  # of one head


class CheckedHead(NamedTuple):
    """What a well-formed head says about its response."""

    status: int
    content_length: int | None
    has_date: bool
    has_request_id: bool


class HeadChecker:
    """Checks heads; equal heads, which are common, are checked once."""

    def __init__(self) -> None:
        self._checked: dict[bytes, CheckedHead] = {}

    def check(self, head: bytes, status: int) -> CheckedHead:
        """Return what `head` says.

        Raises:
            WireError: it is malformed, or says what only the gateway may say.
        """
        checked = self._checked.get(head)
        if checked is None:
            checked = _check(head)
            if len(head) <= _MAX_REMEMBERED_BYTES:
                if len(self._checked) >= _MAX_REMEMBERED:
                    self._checked.clear()
                self._checked[head] = checked
        if checked.status != status:
            raise WireError(f"a head with status {checked.status} where {status} was said")
        return checked


class DateHeader:
    """The date line, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def line(self) -> bytes:
        """Return `date: …` with its line end."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = f"date: {formatdate(second, usegmt=True)}\r\n".encode()
        return self._line


def invocation_lines(
    invocation: str, queue_seconds: float, cold: ColdStart | None, handler_seconds: float
) -> bytes:
    """Return the header lines that tell about an invocation; no cold start: None."""
    if cold is None:
        lines = (
            f"x-fluvial-invocation-id: {invocation}\r\nserver-timing: "
            f"queue;dur={queue_seconds * 1000:.1f}, handler;dur={handler_seconds * 1000:.1f}\r\n"
        )
        return lines.encode()
    lines = (
        f"x-fluvial-invocation-id: {invocation}\r\nserver-timing: "
        f"queue;dur={queue_seconds * 1000:.1f}, {cold.timings()}, "
        f"handler;dur={handler_seconds * 1000:.1f}\r\n{cold.header()}"
    )
    return lines.encode()


def request_id_line(request_id: bytes | None, invocation: str) -> bytes:
    """Return the header line that names the request: by the client's own id, if it had one."""
    return b"x-request-id: %b\r\n" % (request_id or invocation.encode())


def problem_response(
    problem: Problem,
    *,
    invocation: str | None,
    request_id: bytes | None,
    date: bytes,
    connection: bytes,
    head_only: bool,
) -> bytes:
    """Return a whole response that says what is wrong."""
    body = problem.document(invocation)
    lines = [
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in problem.headers),
    ]
    if invocation is not None:
        lines.append(f"x-fluvial-invocation-id: {invocation}")
    named = request_id_line(request_id, invocation or "") if request_id or invocation else b""
    head = "\r\n".join(lines).encode() + b"\r\n" + named + date + connection + b"\r\n"
    return head if head_only else head + body


def _check(head: bytes) -> CheckedHead:
    match = _HEAD.fullmatch(head)
    if match is None:
        raise WireError("a response head is malformed")
    if _RESERVED.search(head):
        raise WireError("a response head has a header that only the gateway sets")
    lengths = _LENGTH.findall(head)
    length: int | None = None
    if lengths:
        if len(lengths) > 1 or _DIGITS.fullmatch(lengths[0].rstrip()) is None:
            raise WireError("a response head has several or malformed content-lengths")
        length = int(lengths[0])
    return CheckedHead(
        int(match[1]),
        length,
        _DATE.search(head) is not None,
        _REQUEST_ID.search(head) is not None,
    )
