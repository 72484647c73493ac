"""A run's log in a test, and the ledger of effects."""

from __future__ import annotations

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.events import EventType
from fluvial.testing import Ledger, SyncEnvironment
from tests.unit.fluvial_testing.shop import Approval, charge, fulfil, ship


def test_a_log_is_read_by_people(env: SyncEnvironment) -> None:
    env.mock(charge, each=[ValueError("no"), "ch_1"])
    env.mock(ship, returns="s" * 1000)
    run = env.start(fulfil, "o-1", 4200)
    env.until(run, hook="order:o-1")
    env.resume("order:o-1", Approval(True), resume_id="r")
    run.result()

    lines = str(run.log).splitlines()

    assert lines[0] == "       0.000 s  RUN_STARTED            shop.fulfil('o-1', 4200)"
    assert any("STEP_RETRYING       1  ValueError: no" in line for line in lines)
    assert any("HOOK_RECEIVED       3  Approval(approved=True)" in line for line in lines)
    assert max(map(len, lines)) < 300


def test_a_log_is_asked_for_its_events(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 4200)
    run.result()

    assert run.log.types[0] is EventType.RUN_STARTED
    assert run.log.types[-1] is EventType.RUN_COMPLETED
    assert {event.value for event in run.log.of(EventType.STEP_COMPLETED)} == {
        "ch_o-1",
        "stock of o-1",
        None,
    }


def test_a_run_is_waited_for_at_several_places(env: SyncEnvironment) -> None:
    run = env.start(fulfil, "o-1", 4200)

    env.until(run, step=charge, status="running")
    env.until(run, event=EventType.HOOK_OPENED, condition=lambda: len(env.calls(charge)) == 1)

    assert run.open_hooks == ["order:o-1"]
    with pytest.raises(InvalidRequestError, match="at least one"):
        env.until(run)


def test_a_ledger_applies_what_has_a_key_once() -> None:
    ledger = Ledger()

    assert ledger.apply("charge", "ch_1", key="a") == "ch_1"
    assert ledger.apply("charge", "ch_2", key="a") == "ch_1"
    assert ledger.apply("mail", key="a") is None
    ledger.apply("mail")
    ledger.apply("mail")

    assert ledger.effects == [("charge", "ch_1"), ("mail", None), ("mail", None), ("mail", None)]
    assert ledger.count("mail") == 3
    assert ledger.summary() == {"charge": 1, "mail": 3}
