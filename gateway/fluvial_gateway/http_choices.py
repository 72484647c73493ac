"""Where a request goes that might go elsewhere: clients with a pin, and the two sides of a rollout.

**Pins.** A client may name the deployment that it came from, in the header `x-fluvial-deployment`
or the cookie `__fluvial_dpl`, and goes on there if the table of hosts lets it. Other names are
ignored. The cookie says nothing where a browser loads a page anew: that page begins with what
is current.

**Rollouts.** A client has a token: its cookie `__fluvial_client`, or, where it brings none, a
digest of its address and of what it says about itself. Token and rollout together give a place
among `_PLACES` that stays the same throughout the rollout and on all gateways; the new deployment
has the places below its percentage. So a client stays on its side, but for those that the next
stage moves over. What a client says can choose its own side, and nobody else's.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from dataclasses import replace
from typing import Final

from fluvial_gateway.hosts import Destination
from fluvial_gateway.http_heads import HeaderBlock
from fluvial_gateway.http_invocations import HttpClient
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.rollout_counts import Side

_CLIENT: Final = re.compile(rb"(?:^|;)[ \t]*__fluvial_client=([0-9a-f]{16})[ \t]*(?=;|$)")
_PIN: Final = re.compile(rb"(?:^|;)[ \t]*__fluvial_dpl=(dpl_[0-9a-z]{24})[ \t]*(?=;|$)")
_TOKEN_BYTES: Final = 8
_COOKIE_SECONDS: Final = 24 * 3600  # longer than a rollout
_PLACES: Final = 10_000  # hundredths of a percent
_LOST: Final = 0  # a status: there will be no complete answer


def choose(
    destination: Destination, headers: HeaderBlock, client: HttpClient
) -> tuple[Destination, HttpClient]:
    """Return where a request goes, and who is to be told of its response."""
    pinned = destination.pins.get(_pin(headers) or b"")
    if pinned is not None:
        return pinned, client
    split = destination.split
    if split is None:
        return destination, client
    match = _CLIENT.search(headers.platform_cookies)
    token = match[1] if match is not None else _digest(headers)
    is_new = zlib.crc32(split.salt + token) % _PLACES < split.percent * _PLACES // 100
    chosen = split.new if is_new else destination
    side = split.counts.new if is_new else split.counts.old
    if match is None:
        chosen = replace(chosen, tail=_with_cookie(chosen.tail, token))
    return chosen, CountingClient(client, side)


class CountingClient:
    """A client's connection whose answers count for one side of a rollout."""

    __slots__ = ("_client", "_side")

    def __init__(self, client: HttpClient, side: Side) -> None:
        self._client = client
        self._side = side

    def invocation_placed(self) -> None:
        self._client.invocation_placed()

    def response_started(
        self, status: int, framing: int, head: bytes, chunk: bytes, more: bool
    ) -> None:
        self._side.answered(status)
        self._client.response_started(status, framing, head, chunk, more)

    def response_continued(self, chunk: bytes, more: bool) -> None:
        self._client.response_continued(chunk, more)

    def response_refused(self, problem: Problem) -> None:
        self._side.answered(problem.status)
        self._client.response_refused(problem)

    def response_failed(self, reason: Unavailable) -> None:
        self._side.answered(_LOST)
        self._client.response_failed(reason)

    def request_credited(self) -> None:
        self._client.request_credited()


def _pin(headers: HeaderBlock) -> bytes | None:
    if headers.pin is not None:
        return headers.pin
    match = _PIN.search(headers.platform_cookies)
    if match is None or (b"sec-fetch-mode", b"navigate") in headers.headers:
        return None
    return match[1]


def _digest(headers: HeaderBlock) -> bytes:
    """Return a token for a client that brings none."""
    address = headers.client[0].encode() if headers.client is not None else b""
    said = [value for name, value in headers.headers if name == b"user-agent"]
    # Also what a proxy of ours says that is not believed otherwise: all clients come through it.
    parts = [address, headers.forwarded.get(b"x-forwarded-for", b""), *said]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[: 2 * _TOKEN_BYTES].encode()


def _with_cookie(tail: bytes, token: bytes) -> bytes:
    return b"set-cookie: __fluvial_client=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax\r\n%b" % (
        token,
        _COOKIE_SECONDS,
        tail,
    )
