"""Isolated steps: a process for each execution, whose end touches nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.histories import read_events, start_run, wait_for_result
from tests.e2e.installation import Platform, wait_until

APP: Final = Path(__file__).parent / "apps" / "alone"
END_SECONDS: Final = 30.0


@pytest.fixture
def app(running: Platform) -> str:
    return running.deploy(APP).name


def result_of(running: Platform, run_id: str) -> Any:
    found = wait_for_result(running, run_id)
    assert found["status"] == "completed", running.logs()
    return found["result"]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_execution_has_a_process_of_its_own_that_ends(running: Platform, app: str) -> None:
    pids = result_of(running, start_run(running, app, "apart"))

    assert pids[0] == pids[3], "ordinary steps share an instance"
    assert len({*pids}) == 3
    wait_until(lambda: not any(map(is_alive, pids[1:3])), END_SECONDS, "they have ended")


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_a_crash_spends_an_attempt_and_leaves_the_neighbours_alone(
    running: Platform, app: str, how: str
) -> None:
    run_id = start_run(running, app, "crashing", how)

    assert result_of(running, run_id) == [2, True]
    events = read_events(running, run_id)
    (crashed,) = [e for e in events if e["type"] == "step_retrying"]
    assert crashed["meta"]["reason"] == "crashed"
    assert crashed["meta"]["cause"] == ("exit:0" if how == "exit" else "signal:11")
    assert not [e for e in events if e["type"] == "attempt_lost"]


def test_a_step_that_always_crashes_fails(running: Platform, app: str) -> None:
    run_id = start_run(running, app, "crashing", "for ever")

    assert result_of(running, run_id) == [["crashed", 2, "StepCrashedError"], True]


def test_a_step_that_is_given_up_is_killed(running: Platform, app: str) -> None:
    run_id = start_run(running, app, "impatient")

    assert result_of(running, run_id) == "gave up"
    wait_until(lambda: not _blocking(running, app), END_SECONDS, "the blocked process has ended")


def _blocking(running: Platform, app: str) -> list[dict[str, Any]]:
    """Instances that still run; those of other steps retire by themselves."""
    with running.api() as api:
        found = api.get("/v1/instances").raise_for_status().json()["instances"]
    return [instance for instance in found if instance["app"] == app]
