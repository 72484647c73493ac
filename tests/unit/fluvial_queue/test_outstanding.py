"""Which of a run's messages may be dispatched without a record."""

from __future__ import annotations

import pytest

from fluvial_queue.contract import Lease
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.outstanding import Outstanding

RUN = f"run_00{'0' * 24}"


@pytest.mark.parametrize(
    ("added_in", "rested", "may_have_started"),
    [
        (0, 0, False),  # from outside: no owner has had it
        (5, 0, False),  # this owner's own
        (4, 0, True),  # an earlier owner's, who may have crashed
        (4, 4, False),  # an earlier owner's, who left nothing running
        (3, 4, False),  # older still: that owner has recorded it or not started it
    ],
)
def test_what_an_earlier_owner_may_have_started_is_known_by_its_epoch(
    added_in: int, rested: int, may_have_started: bool
) -> None:
    outstanding = Outstanding()
    outstanding.add("1-1", Message(MessageKind.STEP, RUN, 1, 1), added_in)

    lease = Lease(0, 5, "nonce", rested)
    assert outstanding.may_have_started("1-1", lease) is may_have_started
