"""Request heads: hostile ones cost linear time, unknown names no memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluvial_gateway.http_heads import check_partial, parse_headers, parse_line
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_problems import RefusedRequestError

LIMITS = HttpLimits()


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: parse_line(data, LIMITS),
        lambda: parse_headers(data, LIMITS, is_1_1=True),
        lambda: check_partial(data or b"G", 0, LIMITS),
    ]
    statuses = {_status(attempt) for attempt in attempts}

    assert statuses <= {200, 400, 405, 413, 414, 417, 431, 501, 505}


def _status(attempt: Callable[[], object]) -> int:
    try:
        attempt()
    except RefusedRequestError as refusal:
        return refusal.problem.status
    return 200


@pytest.mark.parametrize(
    "value",
    [b" " * 16000 + b"\0", b"\t \t" * 5000 + b"\x7f", b"a:" * 8000 + b"\0", b"a" * 16000 + b"\n"],
)
def test_a_hostile_block_costs_linear_time(value: bytes) -> None:
    block = b"A:" + value + b"\r\n"
    began = time.process_time()

    with pytest.raises(RefusedRequestError):
        parse_headers(block, LIMITS, is_1_1=True)

    assert time.process_time() - began < 1.0  # a backtracking pattern takes minutes


def test_the_names_of_strangers_are_forgotten() -> None:
    for number in range(3000):
        raw = b"Host: a\r\nX-%d: b\r\n" % number
        headers = parse_headers(raw, LIMITS, is_1_1=True)
        assert headers.headers[1] == (b"x-%d" % number, b"b")
