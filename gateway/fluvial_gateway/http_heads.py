"""Request heads: one strict reading of the bytes, or a refusal.

The head is read by compiled patterns and by nothing else: a second, more lenient parser behind
them could only disagree. Measured on a six-header GET, the patterns and the classification cost
what httptools with its callbacks costs, and httptools would need these checks in front of it.

Quantifiers are possessive: no input makes a pattern backtrack.

On the same pass over the headers the list for the instance is made: names in lower case, without
hop-by-hop headers (also those that Connection names), without what only we may say
(`x-forwarded-*`, `forwarded`, `x-fluvial-*`), and without names with an underscore, which WSGI
cannot tell from those with a hyphen.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from fluvial_gateway.hosts import host_name
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_problems import RefusedRequestError

Headers = list[tuple[bytes, bytes]]

# the usual: a path; whatever else may be a request line is looked at by the second pattern
_PATH_LINE: Final = re.compile(rb"([A-Z][A-Z0-9_-]{0,31}+) (/[!\"$-~]*+) HTTP/1\.([01])\r\n")
_REQUEST_LINE: Final = re.compile(rb"([A-Z][A-Z0-9_-]{0,31}+) ([!-~]++) HTTP/1\.([01])\r\n")
_OTHER_VERSION: Final = re.compile(rb"[!-~]++ [!-~]++ HTTP/(?!1\.[01]\r)[0-9](?:\.[0-9])?\r\n")
_BLOCK: Final = re.compile(
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+",
)
_HEADERS: Final = re.compile(rb"([^:\r\n]++):[ \t]*+([^\r\n]*+)\r\n")
_CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_WELL_FORMED_ID: Final = re.compile(rb"[A-Za-z0-9._~:/+=@,-]{1,128}")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?#]++)(/[^#]*+|(?=\?)[^#]*+)?", re.IGNORECASE)
_NOT_YET_WRONG: Final = re.compile(rb"(?:[^\r\n\0]++|\r\n)*+\r?")
_CONNECT_OR_TRACE: Final = frozenset({b"CONNECT", b"TRACE"})
_NEVER_HOP_BY_HOP: Final = frozenset({b"host", b"content-length", b"transfer-encoding"})
_PLATFORM_COOKIE: Final = b"__fluvial_"  # how the names of our own cookies begin
_MAX_NAMES: Final = 1024  # header names whose kind is remembered; a stranger cannot fill memory


# Kinds of headers; plain numbers, because an enumeration's members are looked up slowly.
_PASS: Final = 0
_DROP: Final = 1
_FORWARDED: Final = 2
_HOST: Final = 3
_LENGTH: Final = 4
_TRANSFER_ENCODING: Final = 5
_CONNECTION: Final = 6
_EXPECT: Final = 7
_UPGRADE: Final = 8
_REQUEST_ID: Final = 9
_PIN: Final = 10
_COOKIE: Final = 11

_KINDS: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _TRANSFER_ENCODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"x-request-id": _REQUEST_ID,
    b"x-fluvial-deployment": _PIN,
    b"cookie": _COOKIE,
    b"x-forwarded-for": _FORWARDED,
    b"x-forwarded-proto": _FORWARDED,
    b"x-forwarded-host": _FORWARDED,
    b"forwarded": _DROP,
    b"x-real-ip": _DROP,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"proxy-authenticate": _DROP,
    b"proxy-authorization": _DROP,
    b"te": _DROP,
    b"trailer": _DROP,
}
_names: dict[bytes, tuple[bytes, int]] = {}


class RequestLine(NamedTuple):
    """What the first line says, and where the header block begins."""

    method: str
    target: bytes
    is_1_1: bool
    end: int


class HeaderBlock:
    """What the headers say; `headers` are those for the instance, without x-forwarded-*.

    It depends on nothing but the bytes and the version, so the requests of a connection that
    repeat their headers, as most do, share one.
    """

    __slots__ = (
        "chunked",
        "client",
        "content_length",
        "expects_continue",
        "forwarded",
        "headers",
        "host",
        "is_1_1",
        "is_marked",
        "is_websocket",
        "keep_alive",
        "pin",
        "platform_cookies",
        "raw",
        "request_id",
        "scheme",
        "upgrade",
    )

    def __init__(self, raw: bytes, is_1_1: bool) -> None:
        self.raw = raw
        self.is_1_1 = is_1_1
        self.keep_alive = is_1_1
        self.client: tuple[str, int] | None = None
        self.scheme = "http"
        self.host: bytes | None = None
        self.headers: Headers = []
        self.forwarded: dict[bytes, bytes] = {}
        self.content_length = 0
        self.chunked = False
        self.expects_continue = False
        self.request_id: bytes | None = None  # the client's own, if it is well-formed
        self.upgrade = b""  # the protocols that the client would like to speak, in lower case
        self.is_websocket = False  # one of them is this, and Connection says so
        self.pin: bytes | None = None  # the deployment that the client would like to go on with
        self.platform_cookies = b""  # Cookie headers that hold cookies of the platform's
        self.is_marked = False  # there is one of these two


def parse_line(data: bytes, limits: HttpLimits) -> RequestLine:
    """Return what the request line at the start of `data` says.

    Raises:
        RefusedRequestError: it breaks a rule or a limit.
    """
    line = _PATH_LINE.match(data) or _REQUEST_LINE.match(data)
    if line is None:
        raise _wrong_request_line(data)
    method, target, minor = line.groups()
    if len(target) > limits.target_bytes:
        raise _refused(414, "target_too_long", f"a target has at most {limits.target_bytes} bytes")
    if method in _CONNECT_OR_TRACE:
        raise _refused(405, "method_not_allowed", "CONNECT and TRACE are not served")
    return RequestLine(method.decode("ascii"), target, minor == b"1", line.end())


def parse_headers(raw: bytes, limits: HttpLimits, *, is_1_1: bool) -> HeaderBlock:
    """Return what a header block says; it ends with the line end of its last header.

    Raises:
        RefusedRequestError: it breaks a rule or a limit.
    """
    if len(raw) > limits.header_bytes:
        raise _headers_too_large(limits)
    if _BLOCK.fullmatch(raw) is None:
        raise _refused(400, "invalid_header", "a header line is malformed")
    pairs = _HEADERS.findall(raw)
    if len(pairs) > limits.headers:
        raise _headers_too_large(limits)
    block = HeaderBlock(raw, is_1_1)
    _read_headers(block, pairs)
    if block.content_length > limits.body_bytes:
        raise body_too_large(limits)
    return block


def origin_target(target: bytes, host: bytes | None) -> bytes:
    """Return the path and query of a request target.

    Raises:
        RefusedRequestError: it is neither a path nor a URL of this host.
    """
    if target[0] == 0x2F and b"#" not in target:
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise _refused(400, "invalid_target", "a target is a path, or an absolute http URL")
    authority, path = absolute.groups()
    if host is None or authority.lower() != host.lower():
        raise _refused(400, "invalid_target", "the URL and the Host name different servers")
    path = path or b"/"
    return path if path.startswith(b"/") else b"/" + path


def check_partial(data: bytes, scanned: int, limits: HttpLimits) -> None:
    """Refuse a head that is not complete yet and can become nothing good.

    Raises:
        RefusedRequestError: it is too long, or has bytes that no head has.
    """
    if not 0x41 <= data[0] <= 0x5A:
        raise _refused(400, "invalid_request_line", "a request begins with a method")
    # a CR at the end of one piece may meet its LF in the next
    start = scanned - 1 if scanned and data[scanned - 1] == 0x0D else scanned
    if _NOT_YET_WRONG.fullmatch(data, start) is None:
        raise _refused(400, "invalid_header", "a bare CR, LF or NUL in a head")
    line_end = data.find(b"\r\n")
    line_limit = limits.target_bytes + 64  # the method and the version
    if line_end < 0 and len(data) > line_limit:
        raise _refused(414, "target_too_long", f"a target has at most {limits.target_bytes} bytes")
    if line_end >= 0 and len(data) - line_end > limits.header_bytes + 4:
        raise _headers_too_large(limits)


def body_too_large(limits: HttpLimits) -> RefusedRequestError:
    """Return the refusal of a body above the limit."""
    return _refused(413, "body_too_large", f"a body has at most {limits.body_bytes} bytes")


def _refused(status: int, code: str, detail: str) -> RefusedRequestError:
    return RefusedRequestError(status, code, detail)


def _headers_too_large(limits: HttpLimits) -> RefusedRequestError:
    detail = f"at most {limits.headers} headers and {limits.header_bytes} bytes of them"
    return _refused(431, "headers_too_large", detail)


def _wrong_request_line(data: bytes) -> RefusedRequestError:
    if _OTHER_VERSION.match(data):
        return _refused(505, "version_not_supported", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    return _refused(400, "invalid_request_line", "not METHOD, target and HTTP version")


def _read_headers(head: HeaderBlock, pairs: Headers) -> None:
    headers = head.headers
    length: bytes | None = None
    encoding: bytes | None = None
    connection = b""
    for name, raw in pairs:
        lower, kind = _names.get(name) or _classified(name)
        value = raw.rstrip()
        if kind == _PASS:
            headers.append((lower, value))
        elif kind == _HOST:
            if head.host is not None:
                raise _refused(400, "invalid_host", "more than one Host")
            head.host = value
            headers.append((lower, value))
        elif kind == _LENGTH:
            if length is not None:
                raise _refused(400, "invalid_framing", "more than one Content-Length")
            length = value
            headers.append((lower, value))
        elif kind == _CONNECTION:
            connection = connection + b"," + value
        elif kind == _TRANSFER_ENCODING:
            if encoding is not None:
                raise _refused(400, "invalid_framing", "more than one Transfer-Encoding")
            encoding = value
        elif kind != _DROP:
            _read_special(head, kind, lower, value)
    _check_framing(head, length, encoding)
    if connection:
        _read_connection(head, connection)
    if head.host is None and head.is_1_1:
        raise _refused(400, "invalid_host", "HTTP/1.1 requires a Host")
    if head.host is not None and host_name(head.host) is None:
        raise _refused(400, "invalid_host", "the Host is not a name with an optional port")


def _classified(name: bytes) -> tuple[bytes, int]:
    lower = name.lower()
    kind = _KINDS.get(lower, _PASS)
    if b"_" in lower or (kind == _PASS and lower.startswith((b"x-forwarded-", b"x-fluvial-"))):
        kind = _DROP
    if len(_names) < _MAX_NAMES:
        _names[name] = (lower, kind)
    return lower, kind


def _read_special(head: HeaderBlock, kind: int, name: bytes, value: bytes) -> None:
    if kind == _COOKIE:
        head.headers.append((name, value))
        if _PLATFORM_COOKIE in value:
            head.platform_cookies = head.platform_cookies + b";" + value
            head.is_marked = True
    elif kind == _PIN:
        head.pin = value
        head.is_marked = True
    elif kind == _REQUEST_ID:
        is_first = head.request_id is None
        head.request_id = value if is_first and _WELL_FORMED_ID.fullmatch(value) else b""
    elif kind == _UPGRADE:
        head.upgrade = head.upgrade + b"," + value.lower()
    elif kind == _EXPECT:
        if value.lower() != b"100-continue":
            raise _refused(417, "expectation_failed", "only 100-continue can be expected")
        head.expects_continue = head.is_1_1
    else:
        known = head.forwarded.get(name)
        head.forwarded[name] = value if known is None else known + b", " + value


def _check_framing(head: HeaderBlock, length: bytes | None, encoding: bytes | None) -> None:
    if encoding is not None:
        if length is not None:
            raise _refused(400, "invalid_framing", "Content-Length with Transfer-Encoding")
        if encoding.lower() != b"chunked" or not head.is_1_1:
            raise _refused(400, "invalid_framing", "Transfer-Encoding other than chunked in 1.1")
        head.chunked = True
    elif length is not None:
        if _CONTENT_LENGTH.fullmatch(length) is None:
            raise _refused(400, "invalid_framing", "a Content-Length is up to 18 digits")
        head.content_length = int(length)


def _read_connection(head: HeaderBlock, value: bytes) -> None:
    named = {token.strip().lower() for token in value.split(b",")}
    if b"close" in named:
        head.keep_alive = False
    elif b"keep-alive" in named:
        head.keep_alive = True
    if named & _NEVER_HOP_BY_HOP:
        raise _refused(400, "invalid_header", "Connection names a header that is never hop-by-hop")
    if b"upgrade" in named and head.is_1_1:  # other protocols are ignored (RFC 9110 7.8)
        head.is_websocket = b"websocket" in map(bytes.strip, head.upgrade.split(b","))
    named -= {b"", b"close", b"keep-alive", b"upgrade"}
    if named:
        head.headers = [pair for pair in head.headers if pair[0] not in named]
