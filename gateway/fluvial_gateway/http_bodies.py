"""Request bodies: cut from the byte stream by length or by chunks, strictly."""

from __future__ import annotations

import re
from typing import Final, Protocol

from fluvial_gateway.http_heads import body_too_large
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_problems import RefusedRequestError

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,8}+)((?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?)\r\n")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+\r\n")


class Body(Protocol):
    """A request's body while it arrives."""

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """Return the content in `data`, and what follows the body; None while it has not ended.

        Raises:
            RefusedRequestError: the framing is wrong or a limit is passed.
        """
        ...


class LengthBody:
    """A body of known length."""

    __slots__ = ("_remaining",)

    def __init__(self, length: int) -> None:
        self._remaining = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            return data, None
        if size == self._remaining:
            return data, b""
        return data[: self._remaining], data[self._remaining :]


class ChunkedBody:
    """A chunked body; its trailers are checked and dropped."""

    __slots__ = ("_extension_bytes", "_held", "_in_trailers", "_limits", "_remaining", "_total")

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._held = b""  # an incomplete line
        self._remaining = 0  # of the chunk under way, with the line end after it
        self._total = 0
        self._extension_bytes = 0
        self._in_trailers = False

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        content: list[bytes] = []
        data = self._held + data if self._held else data
        self._held = b""
        position = 0
        while position < len(data):
            if self._remaining:
                position = self._take_chunk(data, position, content)
                continue
            line_end = data.find(b"\n", position) + 1
            if not line_end:
                self._hold(data[position:])
                break
            if self._take_line(data, position, line_end):
                return b"".join(content), data[line_end:]
            position = line_end
        return b"".join(content), None

    def _take_chunk(self, data: bytes, position: int, content: list[bytes]) -> int:
        payload = self._remaining - 2
        available = len(data) - position
        if payload > 0:
            taken = min(payload, available)
            content.append(data[position : position + taken])
        else:
            taken = min(self._remaining, available)
            expected = b"\r\n"[2 - self._remaining :][:taken]
            if data[position : position + taken] != expected:
                raise _malformed("a chunk is not followed by CR LF")
        self._remaining -= taken
        return position + taken

    def _take_line(self, data: bytes, start: int, end: int) -> bool:
        """Read a line; return whether it ends the body."""
        if self._in_trailers:
            return self._take_trailer(data, start, end)
        if end - start > self._limits.chunk_line_bytes:
            raise _malformed(f"a chunk's line is above {self._limits.chunk_line_bytes} bytes")
        line = _SIZE_LINE.fullmatch(data, start, end)
        if line is None:
            raise _malformed("a chunk does not begin with its size")
        self._extension_bytes += len(line[2])
        if self._extension_bytes > self._limits.chunk_extension_bytes:
            raise _malformed("the chunk extensions are too long")
        size = int(line[1], 16)
        self._total += size
        if self._total > self._limits.body_bytes:
            raise body_too_large(self._limits)
        if size:
            self._remaining = size + 2
        else:
            self._in_trailers = True
            self._extension_bytes = 0  # from here on it counts the trailers
        return False

    def _take_trailer(self, data: bytes, start: int, end: int) -> bool:
        if end - start == 2 and data[start] == 0x0D:
            return True
        self._extension_bytes += end - start
        if self._extension_bytes > self._limits.trailer_bytes:
            raise _malformed(f"the trailers are above {self._limits.trailer_bytes} bytes")
        if _TRAILER_LINE.fullmatch(data, start, end) is None:
            raise _malformed("a trailer line is malformed")
        return False

    def _hold(self, line: bytes) -> None:
        limit = self._limits.trailer_bytes if self._in_trailers else self._limits.chunk_line_bytes
        if len(line) > limit:
            raise _malformed(f"a line of the chunked framing is above {limit} bytes")
        self._held = line


def _malformed(detail: str) -> RefusedRequestError:
    return RefusedRequestError(400, "invalid_framing", detail)
