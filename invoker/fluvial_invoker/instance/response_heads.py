"""Response heads: validated and serialised where the response is made.

The gateway copies these bytes to the client, so this is the one place that keeps an app from
breaking HTTP's framing: names are tokens, values hold no CR, LF or NUL, hop-by-hop headers are
dropped, and there is at most one Content-Length.

Header lines are cached by (name, value): an app sends the same few again and again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum
from http import HTTPStatus
from typing import Final, cast

MAX_HEAD_BYTES: Final = 64 * 1024
_CACHED_LINES: Final = 1024
_CACHED_VALUE_BYTES: Final = 256

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FORBIDDEN_IN_VALUE: Final = re.compile(rb"[\x00\r\n]")
_HOP_BY_HOP: Final = frozenset(
    {
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# What the gateway writes itself.
_OF_THE_GATEWAY: Final = frozenset({b"date", b"x-fluvial-invocation-id"})

_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    for status in HTTPStatus
    if status.value >= 200  # an app sends final responses only
}
_NO_BODY: Final = frozenset({204, 304})

HeaderPair = tuple[bytes, bytes]


class InvalidResponseError(Exception):
    """An app's response cannot be sent; the message names the header or field."""


class _Kind(IntEnum):
    PLAIN = 0
    LENGTH = 1
    DROPPED = 2
    CONNECTION = 3


_lines: Final[dict[HeaderPair, tuple[bytes, _Kind]]] = {}


def serialise_head(status: int, headers: Iterable[HeaderPair]) -> tuple[bytes, int | None]:
    """Return a head (without the empty line at its end) and its Content-Length if it has one.

    Raises:
        InvalidResponseError: the status or a header is not allowed.
    """
    data = _STATUS_LINES.get(status) or _unusual_status(status)
    length: bytes | None = None
    has_options = False
    for name, value in headers:
        pair = (name, value)
        line, kind = _lines.get(pair) or _line(pair)
        if kind == 0:
            data += line
        elif kind == 1:
            if length is None:
                length = value
                data += line
            elif length != value:
                raise InvalidResponseError("content-length is given twice, with different values")
        elif kind == 3:
            has_options = True
    if has_options:
        data = _without_connection_options(data, headers)
    if len(data) > MAX_HEAD_BYTES:
        raise InvalidResponseError(f"a response head of {len(data)} bytes, above {MAX_HEAD_BYTES}")
    return data, None if length is None else int(length)


def has_no_body(status: int, method: str) -> bool:
    """Whether HTTP forbids a body in this response, whatever the app sends."""
    return method == "HEAD" or status in _NO_BODY


def length_header(body_bytes: int) -> bytes:
    """Return the header line that the app left out."""
    return b"content-length: %d\r\n" % body_bytes


def _unusual_status(status: object) -> bytes:
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise InvalidResponseError(f"status {status!r} is not a final HTTP status (200 to 599)")
    return b"HTTP/1.1 %d \r\n" % status


def _line(pair: HeaderPair) -> tuple[bytes, _Kind]:
    name, value = pair
    if not all(isinstance(each, bytes) for each in cast("tuple[object, object]", pair)):
        raise InvalidResponseError(f"header {name!r}: names and values must be bytes")
    if not _TOKEN.fullmatch(name):
        raise InvalidResponseError(f"{name!r} is not a header name")
    if _FORBIDDEN_IN_VALUE.search(value):
        raise InvalidResponseError(f"header {name!r}: the value contains CR, LF or NUL")
    value = value.strip(b" \t")
    kind = _kind(name.lower(), value)
    entry = (b"%b: %b\r\n" % (name.lower(), value), kind)
    if len(value) <= _CACHED_VALUE_BYTES:
        if len(_lines) >= _CACHED_LINES:
            _lines.clear()
        _lines[pair] = entry
    return entry


def _kind(name: bytes, value: bytes) -> _Kind:
    if name == b"content-length":
        if not value.isdigit():
            raise InvalidResponseError(f"content-length {value!r} is not a number")
        return _Kind.LENGTH
    if name == b"connection":
        return _Kind.CONNECTION
    if name in _HOP_BY_HOP or name in _OF_THE_GATEWAY:
        return _Kind.DROPPED
    return _Kind.PLAIN


def _without_connection_options(data: bytes, headers: Iterable[HeaderPair]) -> bytes:
    """Drop the headers that a Connection header names: they are meant for one hop."""
    named: set[bytes] = set()
    for name, value in headers:
        if name.lower() == b"connection":
            named.update(option.strip().lower() for option in value.split(b","))
    named.discard(b"content-length")
    lines = data.split(b"\r\n")
    kept = [lines[0], *(line for line in lines[1:] if line.partition(b":")[0] not in named)]
    return b"\r\n".join(kept)
