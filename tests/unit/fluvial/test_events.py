"""Events as they stand in a log."""

from __future__ import annotations

import pytest

from fluvial.errors import WireError
from fluvial.events import Event, EventType, unpack_event, unpack_log

LOG = [
    Event(EventType.RUN_STARTED, 1, 0, b"input", {"workflow": "w"}).encode(),
    Event(EventType.STEP_SCHEDULED, 1, 1, b"\xc1" * 5000, {"name": "s"}).encode(),
    Event(EventType.STEP_COMPLETED, 2**40, 1, b"", {"attempt": 1}).encode(),
]


def test_a_log_is_unpacked_as_its_events_are() -> None:
    assert unpack_log(LOG) == [unpack_event(event) for event in LOG]
    assert unpack_log([]) == []


@pytest.mark.parametrize(
    "log",
    [
        [*LOG, b""],
        [*LOG, b"\xc1"],
        [*LOG, b"\x01"],
        [*LOG, LOG[0] + LOG[1]],
        [*LOG, LOG[0][:-1]],
        [LOG[0] + LOG[1], LOG[2][:-1]],
        [*LOG, b"\x94\x01\x01\x00\xc4\x00"],
    ],
    ids=["empty", "no msgpack", "a number", "two in one", "cut", "shifted", "a field short"],
)
def test_what_is_no_log_of_events_is_refused(log: list[bytes]) -> None:
    with pytest.raises(WireError):
        unpack_log(log)
