"""What instances propose is checked before it is believed, at a bounded price."""

from __future__ import annotations

import tracemalloc

import msgpack
import pytest

from fluvial.events import Event, EventType
from fluvial_queue.proposals import MAX_TIME_MS, InvalidProposalError, check_step_end

STEP = 7
MIB = 1024 * 1024


def _completed(payload: bytes = b"x", at_ms: int = 1) -> bytes:
    return Event(EventType.STEP_COMPLETED, at_ms, STEP, payload, {}).encode()


def test_a_large_payload_is_fine() -> None:
    event = check_step_end(STEP, _completed(bytes(8 * MIB)))

    assert len(event.payload) == 8 * MIB


@pytest.mark.parametrize("place", ["time", "payload", "meta", "cut off"])
def test_an_event_that_would_explode_is_refused_unread(place: str) -> None:
    many = b"\xdd\x00\x40\x00\x00" + b"\x80" * (4 * MIB)
    head = b"\x95" + msgpack.packb(int(EventType.STEP_COMPLETED))
    encoded = {
        "time": head + many + b"\x07\xc4\x00\x80",
        "payload": head + b"\x01\x07" + many + b"\x80",
        "meta": head + b"\x01\x07\xc4\x00\x81\xa1m" + many,
        "cut off": head + b"\x01\x07" + many[:-1],
    }[place]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidProposalError):
            check_step_end(STEP, encoded)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 12 * MIB  # decoded it would be 288


@pytest.mark.parametrize("at_ms", [-1, MAX_TIME_MS + 1])
def test_times_are_times(at_ms: int) -> None:
    with pytest.raises(InvalidProposalError, match="time"):
        check_step_end(STEP, _completed(at_ms=at_ms))
