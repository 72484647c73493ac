"""Golden logs: logs that a version wrote replay in every later one, to the same outputs.

They stand in `tests/golden/logs/<version>`, with the code that wrote them beside. Adding some is
welcome (`python -m tests.golden.write`). Those of a released version are never changed, whatever
fails here: somebody has runs that look like them, and it is the change that breaks their runs.
"""

from __future__ import annotations

from typing import Any

import pytest

from fluvial.checks import CheckReport, CheckRequest
from fluvial.codec import decode
from fluvial.error_payloads import describe_error
from fluvial.events import INPUTS, OUTPUTS, Event, EventType, decode_event
from fluvial.invocations import TurnRequest
from fluvial.payloads import PayloadReader
from fluvial.registry import registry
from fluvial.turns import LiveRuns
from tests.golden.logs import CURRENT, GoldenLog, every_log
from tests.golden.scenarios import SCENARIOS

LOGS = every_log()

each_log = pytest.mark.parametrize("log", LOGS, ids=lambda log: f"{log.version}-{log.name}")


def test_every_scenario_has_its_log() -> None:
    assert {log.name for log in LOGS if log.version == CURRENT} == SCENARIOS.keys()


@each_log
def test_a_golden_log_replays_with_the_values_that_it_holds(log: GoldenLog) -> None:
    request = CheckRequest(
        run_id=log.run_id,
        app=log.app,
        workflow=log.workflow,
        consumed=sum(event.type in INPUTS for event in log.events),
        compares_values=True,
        events=log.encoded,
    )

    assert LiveRuns(registry, log.app_keys()).check(request) == CheckReport(
        verdict="ok", warnings=[]
    )


@each_log
def test_every_turn_of_a_golden_log_proposes_what_was_recorded(log: GoldenLog) -> None:
    """Each input was a turn of its own: brought back to just before it, the run takes it again."""
    events, consumed = log.events, 0
    for position, event in enumerate(events):
        if event.type not in INPUTS:
            continue
        request = TurnRequest(
            run_id=log.run_id,
            app=log.app,
            workflow=log.workflow,
            turn_id=None,
            consumed=consumed,
            now_ms=event.at_ms,
            events=log.encoded[: position + 1],
        )
        answer = LiveRuns(registry, log.app_keys()).turn(request)
        assert answer.outcome == "ok", answer.reason
        proposed = [decode_event(encoded) for encoded in answer.events]
        recorded = _outputs_after(events, position)
        assert _opened(log, proposed) == _opened(log, recorded)
        consumed += 1


@each_log
def test_every_value_of_a_golden_log_can_be_read(log: GoldenLog) -> None:
    reader = PayloadReader(log.app_keys().for_run(log.run_id))
    for event in log.events:  # all of them: a hook's payload is bound to its opening
        reader.value(event)


def test_the_logs_hold_every_kind_of_event_that_a_workflow_causes_or_sees() -> None:
    kinds = {event.type for log in LOGS for event in log.events}

    assert kinds >= INPUTS | OUTPUTS


def _outputs_after(events: list[Event], position: int) -> list[Event]:
    found: list[Event] = []
    for event in events[position + 1 :]:
        if event.type not in OUTPUTS:
            break
        found.append(event)
    return found


def _opened(log: GoldenLog, events: list[Event]) -> list[tuple[Any, ...]]:
    return [(e.type.name, e.at_ms, e.id, _compared(e.meta), _plain(log, e)) for e in events]


def _compared(meta: dict[str, Any]) -> dict[str, Any]:
    """Return what a replay holds code to: a hook's schema is for those who resume it."""
    return {name: value for name, value in meta.items() if name != "schema"}


def _plain(log: GoldenLog, event: Event) -> Any:
    """Return what stands for an event's value: sealed twice, equal values are different bytes."""
    keys = log.app_keys()
    if event.type is EventType.CHILD_SCHEDULED or event.type is EventType.RUN_CONTINUED:
        return keys.for_run(event.meta["run"]).open(event.payload, "input")
    if not event.payload:
        return None
    reader = PayloadReader(keys.for_run(log.run_id))
    if event.type is EventType.RUN_FAILED:
        return describe_error(decode(reader.open(event) or b""))  # a traceback names lines of code
    return reader.open(event)
