"""Mistakes in workflows, steps and their calls: a run fails at once, once, and says why."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.e2e.histories import (
    Events,
    of_type,
    read_events,
    start_run,
    wait_for_events,
    wait_for_result,
)
from tests.e2e.installation import App, Platform
from tests.e2e.standing import unharmed

APPS: Final = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def mistakes(running: Platform) -> App:
    return running.deploy(APPS / "mistakes")


FAILED: Final[list[tuple[str, object, str, str]]] = [
    ("total", [1, 2], "invalid_input", "too many positional arguments"),
    ("total", [], "invalid_input", "missing a required argument: 'first'"),
    ("total", ["one"], "invalid_input", "args[0]: is not a valid int: a text"),
    ("total", {"args": [1], "kwargs": {"third": 3}}, "invalid_input", "'third'"),
    ("total", {"args": [1], "kwargs": {"second": []}}, "invalid_input", "kwargs['second']"),
    ("failing", [], "exception", "ValueError: on purpose"),
    ("returned_by_step", [], "step_failed", "result['handles'][1]: a value of type"),
    ("passed_to_step", [], "not_serializable", "args[0]['handle']: a value of type"),
    ("returned_by_workflow", [], "not_serializable", "result[1]: a value of type"),
]


@pytest.mark.parametrize(("workflow", "arguments", "reason", "says"), FAILED)
def test_a_run_fails_at_once_and_says_why(
    running: Platform, mistakes: App, workflow: str, arguments: object, reason: str, says: str
) -> None:
    with running.api() as api:
        started = api.post(f"/v1/apps/mistakes/workflows/{workflow}/runs", json=arguments)
    run_id = str(started.raise_for_status().json()["run_id"])
    found = wait_for_result(running, run_id, 20)
    events = read_events(running, run_id)

    assert (found["status"], says in found["error"]) == ("failed", True), found
    assert events[-1]["type"] == "run_failed"
    assert events[-1]["meta"]["reason"] == reason
    assert of_type(events, "step_retrying") == []
    _check_steps(events, started=0 if reason in ("invalid_input", "exception") else 1)


def test_a_result_without_an_encoding_is_not_tried_again(running: Platform, mistakes: App) -> None:
    run_id = start_run(running, "mistakes", "returned_by_step")
    wait_for_result(running, run_id, 20)
    (failed,) = of_type(read_events(running, run_id), "step_failed")

    assert failed["meta"]["reason"] == "not_serializable"
    assert failed["meta"]["attempt"] == 1


def test_a_start_without_an_encoding_starts_nothing(running: Platform, mistakes: App) -> None:
    with unharmed(running, mistakes), mistakes.client() as client:
        text = client.post("/wrong").text

    assert text.startswith("not_serializable args[0]: a value of type builtins.object")


def test_a_payload_of_the_wrong_type_is_refused_and_leaves_the_hook_open(
    running: Platform, mistakes: App
) -> None:
    run_id = start_run(running, "mistakes", "waiting", "wrong-type")
    wait_for_events(running, run_id, 2)
    with running.api() as api:
        refused = api.post("/v1/hooks/mistakes/wrong-type", json="text")
        taken = api.post("/v1/hooks/mistakes/wrong-type", json=1)
        found = wait_for_result(running, run_id, 20)
        late = api.post("/v1/hooks/mistakes/wrong-type", json=1)

    assert (refused.status_code, refused.json()["code"]) == (422, "payload_invalid")
    assert (taken.status_code, found["result"]) == (202, 2)
    assert (late.status_code, late.json()["code"]) == (409, "run_closed")


def _check_steps(events: Events, *, started: int) -> None:
    """At most the one step of the workflow was scheduled, and no run waits for it."""
    scheduled = of_type(events, "step_scheduled")
    ended = of_type(events, "step_completed") + of_type(events, "step_failed")
    assert len(scheduled) <= started
    assert len(ended) == len(scheduled)
