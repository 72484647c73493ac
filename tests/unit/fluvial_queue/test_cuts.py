"""Where a fork's log ends: no finished result from before is lost, and no turn is cut in two."""

from __future__ import annotations

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.events import Event, EventType
from fluvial_queue.cuts import (
    Cut,
    cut_at_start,
    cut_before_failure,
    cut_before_step,
    open_children,
)

STARTED = Event(EventType.RUN_STARTED, 0)
CANCEL = Event(EventType.CANCEL_REQUESTED, 0)
CANCELLED = Event(EventType.RUN_CANCELLED, 0)
FAILED = Event(EventType.RUN_FAILED, 0)


def asked(number: int) -> Event:
    return Event(EventType.STEP_SCHEDULED, 0, number)


def done(number: int) -> Event:
    return Event(EventType.STEP_COMPLETED, 0, number)


def broke(number: int) -> Event:
    return Event(EventType.STEP_FAILED, 0, number)


def given_up(number: int) -> Event:
    return Event(EventType.STEP_CANCELLED, 0, number)


SEQUENCE = [STARTED, asked(1), done(1), asked(2), done(2), asked(3), broke(3), FAILED]


@pytest.mark.parametrize(
    ("step", "cut"), [(1, Cut(1, 0)), (2, Cut(3, 1)), (3, Cut(5, 2))], ids=["1", "2", "3"]
)
def test_a_step_of_a_sequence_is_asked_for_anew(step: int, cut: Cut) -> None:
    assert cut_before_step(SEQUENCE, step) == cut


def test_the_step_that_failed_is_the_last_that_did() -> None:
    assert cut_before_failure(SEQUENCE) == cut_before_step(SEQUENCE, 3)
    with pytest.raises(InvalidRequestError, match="no step of the run has failed"):
        cut_before_failure(SEQUENCE[:5])


def test_everything_happens_again_from_the_start() -> None:
    assert cut_at_start(SEQUENCE) == Cut(1, 0)


def test_what_a_step_ran_beside_is_kept_where_it_had_ended_before() -> None:
    log = [STARTED, asked(1), asked(2), done(1), done(2), asked(3)]

    assert cut_before_step(log, 2) == Cut(4, 1)  # step 1 keeps its result, 2 is executed again
    assert cut_before_step(log, 1) == Cut(1, 0)  # nothing had ended before: both are asked anew
    assert cut_before_step(log, 3) == Cut(5, 1)


def test_a_turn_that_consumed_two_inputs_is_taken_again_as_a_whole() -> None:
    log = [STARTED, asked(1), asked(2), done(1), done(2), asked(3), asked(4), done(4), done(3)]

    assert cut_before_step(log, 4) == Cut(5, 1)
    assert cut_before_step(log, 3) == Cut(8, 3)  # step 4 had ended: it stays, 3 is executed again


def test_a_step_that_never_ended_goes_on_without_the_cancel_that_ended_it() -> None:
    log = [STARTED, asked(1), asked(2), done(1), CANCEL, given_up(2), CANCELLED]

    assert cut_before_step(log, 2) == Cut(4, 1)


def test_a_step_that_was_given_up_goes_on_in_front_of_that_turn() -> None:
    fired = Event(EventType.TIMER_FIRED, 0, 2)
    timer = Event(EventType.TIMER_SET, 0, 2)
    log = [STARTED, asked(1), timer, fired, given_up(1), asked(3)]

    assert cut_before_step(log, 1) == Cut(4, 1)


def test_a_step_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidRequestError, match="no step 9; its steps: 1, 2, 3"):
        cut_before_step(SEQUENCE, 9)


def test_children_that_have_not_ended_are_named() -> None:
    def child(number: int, policy: str) -> Event:
        return Event(EventType.CHILD_SCHEDULED, 0, number, meta={"policy": policy})

    ended = Event(EventType.CHILD_COMPLETED, 0, 1)
    log = [STARTED, child(1, "cancel"), child(2, "cancel"), child(3, "detach"), ended]

    assert open_children(log) == [2]
