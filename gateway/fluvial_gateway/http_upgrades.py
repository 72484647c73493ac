"""The WebSocket handshake (RFC 6455 §4.2): the part of it that belongs to the connection.

The gateway checks what a client asks for and answers with the key's digest. Subprotocol and
extensions are between the client and the function: they pass through, as do the bytes after it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

from fluvial.errors import WireError
from fluvial_gateway.http_heads import HeaderBlock, RequestLine
from fluvial_gateway.http_problems import RefusedRequestError

SWITCHING_PROTOCOLS: Final = 101

_VERSION: Final = b"13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes in base64
_HEAD: Final = re.compile(
    rb"HTTP/1\.1 101 [\t\x20-\x7e\x80-\xff]*+\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n)*+"
)
_NOT_THE_INSTANCES: Final = re.compile(
    rb"\n(?:connection|upgrade|content-length|transfer-encoding|trailer|keep-alive|date"
    rb"|proxy-connection|sec-websocket-accept|x-request-id|x-fluvial-[^:]*+)[ \t]*+:",
    re.IGNORECASE,
)
_SCHEMES: Final = {"http": "ws", "https": "wss"}


def check_handshake(line: RequestLine, headers: HeaderBlock) -> str:
    """Return the scheme of a handshake that a client has sent.

    Raises:
        RefusedRequestError: it breaks the rules.
    """
    if line.method != "GET" or headers.chunked or headers.content_length:
        raise _refused("a WebSocket begins with a GET without a body")
    versions = _values(headers, b"sec-websocket-version")
    if versions != [_VERSION]:
        raise RefusedRequestError(
            400,
            "websocket_version",
            "only version 13 of the WebSocket protocol is spoken here",
            headers=(("sec-websocket-version", "13"),),
        )
    keys = _values(headers, b"sec-websocket-key")
    if len(keys) != 1 or _KEY.fullmatch(keys[0]) is None:
        raise _refused("Sec-WebSocket-Key is 16 bytes in base64, once")
    return _SCHEMES[headers.scheme]


def switching_head(head: bytes, headers: HeaderBlock) -> bytes:
    """Return what the client gets for an instance's head with status 101, but its last line end.

    Raises:
        WireError: the head is malformed, or says what only the gateway may say.
    """
    if _HEAD.fullmatch(head) is None or _NOT_THE_INSTANCES.search(head):
        raise WireError("a head of status 101 is malformed, or says what only the gateway says")
    key = _values(headers, b"sec-websocket-key")[0]
    accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
    return b"%bupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: %b\r\n" % (
        head,
        accept,
    )


def _values(headers: HeaderBlock, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers.headers if name == wanted]


def _refused(detail: str) -> RefusedRequestError:
    return RefusedRequestError(400, "invalid_handshake", detail)
