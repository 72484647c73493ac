"""Positions in traces."""

from __future__ import annotations

import re

import pytest

from fluvial.trace_context import child_traceparent

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-00"


def test_an_invocation_has_a_span_of_its_own_in_the_trace_of_its_request() -> None:
    one, other = child_traceparent(PARENT, "inv_1"), child_traceparent(PARENT, "inv_2")

    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-00", one)
    assert one != other
    assert "00f067aa0ba902b7" not in one
    assert child_traceparent(PARENT, "inv_1") == one


def test_a_later_version_is_understood_as_far_as_it_is_known() -> None:
    assert child_traceparent(f"cc-{TRACE}-00f067aa0ba902b7-01-more", "inv_1").startswith(
        f"00-{TRACE}-"
    )


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        PARENT.upper(),
        PARENT + "-more",
        f"ff-{TRACE}-00f067aa0ba902b7-01",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-00f067aa0ba902b7",
    ],
)
def test_without_a_trace_the_invocation_begins_one(malformed: str) -> None:
    begun = child_traceparent(malformed, "inv_1")

    assert re.fullmatch("00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-01", begun)
    assert TRACE not in begun
