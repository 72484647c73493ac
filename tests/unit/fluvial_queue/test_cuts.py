"""Where a fork's log ends: no finished result from before is lost, and no turn is cut in two."""

from __future__ import annotations

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.events import Event, EventType
from fluvial_queue.cuts import (
    Cut,
    StepAmbiguousError,
    StepNotFoundError,
    cut_at_start,
    cut_before_failure,
    cut_before_step,
    find_step,
    open_children,
)

STARTED = Event(EventType.RUN_STARTED, 0)
CANCEL = Event(EventType.CANCEL_REQUESTED, 0)
CANCELLED = Event(EventType.RUN_CANCELLED, 0)
FAILED = Event(EventType.RUN_FAILED, 0)
TIMEOUT = Event(EventType.TIMER_SET, 0, 2)
FIRED = Event(EventType.TIMER_FIRED, 0, 2)


def asked(number: int) -> Event:
    return Event(EventType.STEP_SCHEDULED, 0, number, meta={"name": f"step {number % 2}"})


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


def test_a_step_that_outlasted_the_cancel_goes_on_without_it() -> None:
    log = [STARTED, asked(1), asked(2), done(1), CANCEL, asked(3), done(2), done(3), CANCELLED]

    assert cut_before_step(log, 2) == Cut(4, 1)


def test_a_step_that_was_given_up_goes_on_in_front_of_what_made_the_workflow_do_so() -> None:
    log = [STARTED, asked(1), TIMEOUT, FIRED, given_up(1), asked(3)]
    beside = [STARTED, asked(1), TIMEOUT, asked(3), done(3), FIRED, given_up(1), asked(4)]

    assert cut_before_step(log, 1) == Cut(1, 0)  # with a timeout of its own, set anew
    assert cut_before_step(beside, 1) == Cut(5, 1)


def test_a_step_that_the_end_of_its_run_cut_off_goes_on_without_what_ended_the_run() -> None:
    log = [STARTED, asked(1), asked(2), broke(1), FAILED]

    assert cut_before_step(log, 2) == Cut(1, 0)


@pytest.mark.parametrize(
    "result", [done(1), Event(EventType.HOOK_RECEIVED, 0, 1), Event(EventType.CHILD_FAILED, 0, 1)]
)
def test_results_of_what_began_earlier_are_kept(result: Event) -> None:
    log = [STARTED, asked(1), asked(2), done(2), asked(3), result, done(3)]

    assert cut_before_step(log, 3) == Cut(6, 2)


def test_a_sleep_that_ended_meanwhile_is_kept_and_a_timeout_is_not() -> None:
    sleep = Event(EventType.TIMER_SET, 0, 2, meta={"sleep": True})
    slept = [STARTED, asked(1), sleep, FIRED, done(1)]
    timed_out = [STARTED, asked(1), TIMEOUT, FIRED, done(1)]

    assert cut_before_step(slept, 1) == Cut(4, 1)
    assert cut_before_step(timed_out, 1) == Cut(1, 0)


def test_what_failed_together_happens_again_together_and_the_rest_is_kept() -> None:
    log = [STARTED, asked(1), asked(2), asked(3), broke(1), done(2), broke(3), done(4), FAILED]
    cut = cut_before_failure(log)

    assert cut == Cut(8, 1, frozenset({4, 6}))
    assert cut.kept(log) == [STARTED, asked(1), asked(2), asked(3), done(2), done(4)]


def test_a_failure_that_the_workflow_has_reacted_to_stays() -> None:
    log = [STARTED, asked(1), broke(1), asked(2), asked(3), broke(3), broke(2), FAILED]

    assert cut_before_failure(log) == Cut(3, 1)


def test_a_failure_before_and_one_after_a_cancel() -> None:
    log = [STARTED, asked(1), asked(2), done(2), broke(1), CANCEL, asked(3), CANCELLED]
    after = [STARTED, asked(1), CANCEL, broke(1), CANCELLED]

    assert cut_before_failure(log).kept(log) == log[:4]
    assert cut_before_failure(after) == Cut(1, 0)


def test_a_step_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(InvalidRequestError, match="no step 9; its steps: 1 step 1, 2 step 0, 3"):
        cut_before_step(SEQUENCE, 9)


def test_a_step_is_found_by_its_id_and_by_a_name_that_no_other_has() -> None:
    assert find_step(SEQUENCE, 3) == 3
    assert find_step(SEQUENCE, "step 0") == 2
    with pytest.raises(StepAmbiguousError, match="say which: 1 step 1, 3 step 1") as ambiguous:
        find_step(SEQUENCE, "step 1")
    with pytest.raises(StepNotFoundError, match="no step named 'other'; its steps: 1 step 1"):
        find_step(SEQUENCE, "other")
    assert ambiguous.value.steps == {1: "step 1", 3: "step 1"}


def test_children_that_have_not_ended_are_named() -> None:
    def child(number: int, policy: str) -> Event:
        return Event(EventType.CHILD_SCHEDULED, 0, number, meta={"policy": policy})

    ended = Event(EventType.CHILD_COMPLETED, 0, 1)
    log = [STARTED, child(1, "cancel"), child(2, "cancel"), child(3, "detach"), ended]

    assert open_children(log) == [2]
