"""What a replay compares of each output, and what it leaves alone."""

from __future__ import annotations

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import NondeterminismError
from fluvial.events import EventType
from fluvial.journal import Journal, Operation, Recorded
from tests.unit.fluvial.conftest import RUN

STEP: Recorded = (int(EventType.STEP_SCHEDULED), 1, {"name": "charge", "timeout_ms": 0})
TIMER: Recorded = (int(EventType.TIMER_SET), 1, {"delay_ms": 1000})
HOOK: Recorded = (int(EventType.HOOK_OPENED), 1, {"token": "hook_a", "chosen": False})
CHILD: Recorded = (int(EventType.CHILD_SCHEDULED), 1, {"workflow": "leaf", "run": "run_a"})
TAGS: Recorded = (int(EventType.TAGS_SET), 0, {"tags": {"phase": "one"}})
GIVEN_UP: Recorded = (int(EventType.STEP_CANCELLED), 1, {})
ANOTHER_GIVEN_UP: Recorded = (int(EventType.STEP_CANCELLED), 2, {})
DONE: Recorded = (int(EventType.RUN_COMPLETED), 0, {})
FAILED: Recorded = (int(EventType.RUN_FAILED), 0, {})
PUBLISHED: Recorded = (int(EventType.STATE_PUBLISHED), 0, {})


def with_meta(output: Recorded, **meta: object) -> Recorded:
    return output[0], output[1], {**output[2], **meta}


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        (STEP, with_meta(STEP, name="refund")),
        (TIMER, with_meta(TIMER, delay_ms=2000)),
        (HOOK, with_meta(HOOK, chosen=True)),
        (CHILD, with_meta(CHILD, workflow="tree")),
        (TAGS, with_meta(TAGS, tags={"phase": "two"})),
        (GIVEN_UP, ANOTHER_GIVEN_UP),
        (DONE, FAILED),
        (PUBLISHED, TAGS),
    ],
)
def test_an_output_that_differs_is_caught(keys: AppKeys, recorded: Recorded, now: Recorded) -> None:
    journal = Journal(keys.for_run(RUN), [recorded])

    with pytest.raises(NondeterminismError, match="the log recorded"):
        journal.match(EventType(now[0]), now[1], now[2])


@pytest.mark.parametrize(
    ("recorded", "now"),
    [
        (STEP, with_meta(STEP, timeout_ms=5)),
        (HOOK, with_meta(HOOK, token="hook_b")),
        (CHILD, with_meta(CHILD, policy="cancel")),
        (DONE, DONE),
    ],
)
def test_what_may_change_with_the_code_is_not_compared(
    keys: AppKeys, recorded: Recorded, now: Recorded
) -> None:
    journal = Journal(keys.for_run(RUN), [recorded])

    journal.match(EventType(now[0]), now[1], now[2])
    journal.end_replay()
    assert not journal.is_replaying


def test_a_journal_that_is_closed_takes_nothing(keys: AppKeys) -> None:
    journal = Journal(keys.for_run(RUN))
    journal.close()

    for ask in (journal.ask, journal.note):
        with pytest.raises(GeneratorExit):
            ask(Operation())
