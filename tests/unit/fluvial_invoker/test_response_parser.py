"""Bytes that user code wrote become a response, or are refused."""

from __future__ import annotations

from typing import Any

import pytest

from fluvial_invoker.instance.response_heads import InvalidResponseError
from fluvial_invoker.instance.response_parser import ResponseParser


def parse(data: bytes, *, method: str = "GET", piece_bytes: int = 10_000) -> Any:
    """Return (status, headers, body, how often `more_body` was false)."""
    parser = ResponseParser(method)
    messages: list[Any] = []
    for start in range(0, len(data), piece_bytes):
        messages += parser.feed(data[start : start + piece_bytes])
    messages += parser.finish()
    first, *rest = messages
    body = b"".join(message["body"] for message in rest)
    return first["status"], first["headers"], body, sum(not each["more_body"] for each in rest)


@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\nA: b\r\nContent-Length: 4\r\n\r\nfour", 200, b"four"),
        (b"HTTP/1.1 201 \r\nA:b\r\nContent-Length: 0\r\n\r\n", 201, b""),
        (b"HTTP/1.1 404\r\nA: b\r\n\r\n", 404, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nx", 200, b"x"),
        (
            b"HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: u\r\n\r\n",
            200,
            b"abc0123456789",
        ),
        (b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nA: b\r\n\r\nbody all the same", 304, b""),
    ],
)
def test_a_response_is_read_in_whatever_pieces_it_comes(
    data: bytes, status: int, body: bytes, piece_bytes: int
) -> None:
    found = parse(data, piece_bytes=piece_bytes)

    assert (found[0], found[2], found[3]) == (status, body, 1)
    assert found[1][0] == (b"a", b"b")


def test_a_response_to_head_ends_with_its_head() -> None:
    data = b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n"

    assert parse(data, method="HEAD")[2:] == (b"", 1)
    assert parse(data + b"four", method="HEAD")[2:] == (b"", 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "there is no response"),
        (b"HTTP/1.0 200 OK\r\nA: b\r\n", "head is not complete"),
        (b"<html>\r\n\r\n", "no status line"),
        (b"HTTP/2 200 OK\r\n\r\n", "no status line"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "101"),
        (b"HTTP/1.0 200 OK\r\nA b\r\n\r\n", "no header line"),
        (b"HTTP/1.0 200 OK\r\n folded: b\r\n\r\n", "no header line"),
        (b"HTTP/1.0 200 OK\r\nA : b\r\n\r\n", "no header line"),
        (b"HTTP/1.0 200 OK\r\nA: b\nC: d\r\n\r\n", "no header line"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfourX", "1 bytes more"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nfou", "body is not complete"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", "content-length"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: +4\r\n\r\n", "content-length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "transfer-encoding",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no size"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", "longer than"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", "not complete"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1" * 2000, "does not end"),
        (b"HTTP/1.0 200 OK\r\nA: " + b"b" * 70_000, "above 65536"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidResponseError, match=reason):
        parse(data)


def test_bytes_after_the_end_are_refused() -> None:
    parser = ResponseParser("GET")
    list(parser.feed(b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na"))

    with pytest.raises(InvalidResponseError, match="1 bytes follow"):
        list(parser.feed(b"b"))
