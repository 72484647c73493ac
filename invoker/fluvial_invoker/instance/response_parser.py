"""Reads an HTTP/1 response that user code has written as bytes, strictly.

What could be read in two ways is refused: lines end with CR LF, headers are not folded, and a body
has either a length, chunks, or lasts until the code ends. Informational responses are dropped, and
so is a body where HTTP has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from fluvial_invoker.instance.asgi import Message
from fluvial_invoker.instance.response_heads import (
    MAX_HEAD_BYTES,
    HeaderPair,
    InvalidResponseError,
    has_no_body,
)

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")
_FIRST_FINAL: Final = 200
_SWITCHING: Final = 101
_MAX_CHUNK_LINE: Final = 1024
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")


class ResponseParser:
    """Makes ASGI messages of a response's bytes."""

    def __init__(self, method: str) -> None:
        self._method = method
        self._buffer = bytearray()
        self._has_head = False
        self._has_no_body = False
        self._is_complete = False
        self._left: int | None = None  # of the body or of the chunk; None: until the end
        self._is_chunked = False
        self._in_trailer = False

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield what `data` completes.

        Raises:
            InvalidResponseError: this is no response.
        """
        self._buffer += data
        if not self._has_head:
            yield from self._heads()
        if self._has_no_body:
            self._buffer.clear()  # written all the same: one method for GET and HEAD, say
        if not self._has_head or not self._buffer:
            return
        if self._is_complete:
            raise InvalidResponseError(f"{len(self._buffer)} bytes follow the response's end")
        if self._is_chunked:
            yield from self._chunks()
        else:
            yield self._body(bytes(self._buffer))
            self._buffer.clear()

    def finish(self) -> Iterator[Message]:
        """The code has ended: yield the last message.

        Raises:
            InvalidResponseError: the response is not complete.
        """
        if self._is_complete:
            return
        if not self._has_head:
            raise InvalidResponseError(
                "the response's head is not complete" if self._buffer else "there is no response"
            )
        if self._is_chunked or self._left:
            raise InvalidResponseError("the response's body is not complete")
        yield {"type": "http.response.body", "body": b"", "more_body": False}

    def _heads(self) -> Iterator[Message]:
        while not self._has_head:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise InvalidResponseError(f"a response head above {MAX_HEAD_BYTES} bytes")
                return
            head = bytes(self._buffer[:end])
            del self._buffer[: end + 4]
            status, headers = _head(head)
            if status == _SWITCHING:
                raise InvalidResponseError("101 Switching Protocols is not possible here")
            if status >= _FIRST_FINAL:
                self._has_head = True
                self._frame(status, headers)
                yield {"type": "http.response.start", "status": status, "headers": headers}
                if self._left == 0 and not self._is_chunked:
                    yield self._body(b"")

    def _frame(self, status: int, headers: list[HeaderPair]) -> None:
        encodings = [value for name, value in headers if name == b"transfer-encoding"]
        lengths = {value for name, value in headers if name == b"content-length"}
        if encodings and (lengths or encodings != [b"chunked"]):
            raise InvalidResponseError("transfer-encoding is not chunked alone, without a length")
        if len(lengths) > 1 or not all(length.isdigit() for length in lengths):
            raise InvalidResponseError(f"content-length is {sorted(lengths)!r}")
        if has_no_body(status, self._method):
            self._has_no_body, self._left = True, 0
        elif encodings:
            self._is_chunked = True
        elif lengths:
            self._left = int(lengths.pop())

    def _body(self, data: bytes) -> Message:
        if self._left is not None:
            if len(data) > self._left:
                excess = len(data) - self._left
                raise InvalidResponseError(f"the body has {excess} bytes more than its head says")
            self._left -= len(data)
            self._is_complete = self._left == 0
        return {"type": "http.response.body", "body": data, "more_body": not self._is_complete}

    def _chunks(self) -> Iterator[Message]:
        while self._buffer and not self._is_complete:
            if self._left is None:
                line = self._line()
                if line is None:
                    return
                if self._in_trailer:
                    if not line:
                        yield self._end_of_chunks()
                    continue
                self._left = _chunk_size(line)
                if self._left == 0:
                    self._in_trailer, self._left = True, None
                continue
            if len(self._buffer) < self._left + 2:
                return
            data = bytes(self._buffer[: self._left])
            if not self._buffer.startswith(b"\r\n", self._left):
                raise InvalidResponseError("a chunk is longer than it says")
            del self._buffer[: self._left + 2]
            self._left = None
            yield {"type": "http.response.body", "body": data, "more_body": True}

    def _end_of_chunks(self) -> Message:
        self._is_complete, self._is_chunked = True, False
        return {"type": "http.response.body", "body": b"", "more_body": False}

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > _MAX_CHUNK_LINE:
                raise InvalidResponseError("a chunk's size line does not end")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


def _head(data: bytes) -> tuple[int, list[HeaderPair]]:
    first, *lines = data.split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    if status is None:
        raise InvalidResponseError(f"{first[:100]!r} is no status line of HTTP/1")
    headers: list[HeaderPair] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip() or b"\n" in line or b"\r" in line:
            raise InvalidResponseError(f"{line[:100]!r} is no header line")
        headers.append((name.lower(), value.strip(b" \t")))
    return int(status.group(1)), headers


def _chunk_size(line: bytes) -> int:
    found: Any = _CHUNK_SIZE.fullmatch(line)
    if found is None:
        raise InvalidResponseError(f"{line[:100]!r} is no size of a chunk")
    return int(found.group(1), 16)
