"""Chunked bodies mean the same however they are cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial_gateway.http_bodies import ChunkedBody, LengthBody
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_problems import RefusedRequestError

LIMITS = HttpLimits(body_bytes=1000, trailer_bytes=64)
REST = b"GET / HTTP/1.1\r\n"


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    extension=st.sampled_from([b"", b";a", b' ;a="b;c"']),
    trailer=st.sampled_from([b"", b"a: b\r\n"]),
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_every_cut_gives_the_same_body(
    chunks: list[bytes], extension: bytes, trailer: bytes, cuts: list[int]
) -> None:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    body, content, rest = ChunkedBody(LIMITS), b"", None
    for piece in _cut(framed + b"0\r\n" + trailer + b"\r\n" + REST, cuts):
        if rest is None:
            part, rest = body.feed(piece)
            content += part
        else:
            rest += piece

    assert content == b"".join(chunks)
    assert rest == REST


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_hostile_bytes_end_in_a_refusal_or_wait(data: bytes, cuts: list[int]) -> None:
    body = ChunkedBody(LIMITS)
    status = 200
    try:
        for piece in _cut(data, cuts):
            if body.feed(piece)[1] is not None:
                break
    except RefusedRequestError as refusal:
        status = refusal.problem.status

    assert status in (200, 400, 413)


def test_chunks_above_the_limit_are_refused_before_they_come() -> None:
    body = ChunkedBody(LIMITS)
    body.feed(b"3e7\r\n" + bytes(999) + b"\r\n")

    with pytest.raises(RefusedRequestError, match="at most 1000 bytes"):
        body.feed(b"2\r\n")


def test_a_length_ends_where_it_says() -> None:
    body = LengthBody(5)

    assert body.feed(b"abc") == (b"abc", None)
    assert body.feed(b"deGET") == (b"de", b"GET")
