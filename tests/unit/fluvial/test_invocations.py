"""Answers are hostile input: whatever they hold, reading them is cheap and says WireError."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest

from fluvial import wire
from fluvial.errors import WireError
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import (
    MAX_EVENTS_PER_ANSWER,
    MAX_REASON_CHARACTERS,
    Answer,
    pack_events,
    unpack_events,
    unpack_list,
)

MIB = 1024 * 1024
BOMBS = {
    "empty maps": b"\xdd\x00\x10\x00\x00" + b"\x80" * MIB,
    "empty arrays": b"\xdd\x00\x10\x00\x00" + b"\x90" * MIB,
    "arrays in arrays": b"\xdd\x00\x10\x00\x00" * (MIB // 5),
    "one map": b"\x91\xdf\x00\x08\x00\x00" + bytes(MIB),
    "a size that is not there": b"\xdd\x7f\xff\xff\xff",
    "nothing but numbers": b"\xdd\x00\x10\x00\x00" + bytes(MIB),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_answer_that_would_explode_is_refused(name: str) -> None:
    body = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            Answer.from_frame("ok", {}, body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * MIB  # the body itself, copied once or twice


@pytest.mark.parametrize(
    "body",
    [
        b"\xc0",
        b"\x80",
        b"\x05",
        b"\x91",
        b"\x91\xc0",
        b"\x91\xa1x",
        b"\x91\x90",
        pack_events([b"a"]) + b"\x00",
        pack_events([b"a", b"b"])[:-1],
    ],
)
def test_what_is_no_list_of_events(body: bytes) -> None:
    with pytest.raises(WireError):
        unpack_events(body)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70_000])
def test_lists_of_events_survive_the_journey(count: int) -> None:
    events = [b"%d" % number for number in range(count)]

    assert unpack_events(pack_events(events)) == events


def test_the_number_of_events_is_bounded() -> None:
    body = pack_events([b""] * (MAX_EVENTS_PER_ANSWER + 1))

    with pytest.raises(WireError, match="above"):
        Answer.from_frame("ok", {}, body)
    assert unpack_list(msgpack.packb(["a", None]), at_most=2) == ["a", None]


@pytest.mark.parametrize(
    "meta",
    [{"turn": 1}, {"turn": "text"}, {"turn": {}}, {"turn": bytes(65)}, {"reason": 1}],
)
def test_meta_of_the_wrong_type_is_refused(meta: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        Answer.from_frame("ok", meta, b"")


def test_a_long_reason_is_cut() -> None:
    answer = Answer.from_frame("diverged", {"reason": "x" * 100_000}, b"")

    assert len(answer.reason) == MAX_REASON_CHARACTERS


@pytest.mark.parametrize(
    "fields",
    [
        (1, 0, 0, 1 << 33, {}),  # `bytes` of a number is as many zeros
        (1, 0, 0, "text", {}),
        (1, 0, 0, [1, 2], {}),
        (1, "0", 0, b"", {}),
        (1, 0, 1.5, b"", {}),
        (1, 0, True, b"", {}),
        (1, 0, 0, b"", None),
        (1, 0, 0, b"", []),
    ],
)
def test_an_event_has_exact_types(fields: tuple[Any, ...]) -> None:
    with pytest.raises(WireError):
        decode_event(msgpack.packb(fields))

    event = Event(EventType(1), 5, 6, b"payload", {"name": "x"})
    assert decode_event(event.encode()) == event


def test_a_frame_header_cannot_claim_what_it_does_not_hold() -> None:
    nested = b"\xdd\x00\x03\xff\xf0" * 1000
    header = nested + b"\xc0" * (wire.MAX_HEADER_BYTES - len(nested))
    frame = len(header).to_bytes(4, "big") + bytes(4) + header
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            list(wire.FrameReader().feed(frame))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 * MIB
