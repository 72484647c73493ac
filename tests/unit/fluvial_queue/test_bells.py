"""Bells that nobody hears in time become one `lost`."""

from __future__ import annotations

from fluvial_queue.bells import LOST, MAX_BELLS, BellQueue
from fluvial_queue.contract import Bell
from fluvial_queue.redis.bells import parse_bell


def test_bells_come_in_order() -> None:
    queue = BellQueue()
    queue.ring(Bell("messages", partition=1))
    queue.ring(Bell("finished", run_id="r"))

    assert queue.take() == Bell("messages", partition=1)
    assert queue.take() == Bell("finished", run_id="r")
    assert queue.take() is None


def test_too_many_bells_become_one_lost() -> None:
    queue = BellQueue()
    for partition in range(MAX_BELLS + 1):
        queue.ring(Bell("messages", partition=partition))

    assert queue.take() == LOST
    assert queue.take() is None


def test_unknown_bell_is_ignored() -> None:
    assert parse_bell("m17") == Bell("messages", partition=17)
    assert parse_bell("frun_1") == Bell("finished", run_id="run_1")
    assert parse_bell("srun_1") == Bell("stream", run_id="run_1")
    for text in ("", "m", "mx", "z1"):
        assert parse_bell(text) is None
