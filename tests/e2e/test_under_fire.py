"""Kill -9 in the middle of runs: they go on and end, and each result is recorded once."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import chess.pgn
import pytest

from tests.e2e.histories import (
    check_each_result_once,
    check_ledger,
    of_type,
    read_events,
    start_run,
    wait_for_events,
    wait_for_result,
)
from tests.e2e.installation import App, Platform, platform, wait_until
from tests.e2e.processes import child, descendants, is_alive

APPS = Path(__file__).parent / "apps"
EXAMPLES = Path(__file__).parents[2] / "examples"

Kill = Callable[[Platform, App], None]


def kill_instance(running: Platform, app: App) -> None:
    assert running.kill_instances(app)


def kill_gateway(running: Platform, app: App) -> None:
    os.kill(child(running, "fluvial_gateway"), signal.SIGKILL)


def kill_invoker(running: Platform, app: App) -> None:
    os.kill(child(running, "fluvial_invoker"), signal.SIGKILL)


def kill_everything(running: Platform, app: App) -> None:
    """The supervisor, and with it, since children die with their parent, all programs."""
    pids = descendants(running.process.pid)
    for pid in [running.process.pid, *pids]:
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)
    running.process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), 10, "everything is dead")


ONE_PROGRAM = [kill_instance, kill_gateway, kill_invoker]


@pytest.mark.parametrize("kill", ONE_PROGRAM)
def test_parallel_steps_survive_the_death_of(kill: Kill, short_home: Path) -> None:
    ledger = short_home / "ledger"
    with platform(short_home) as running:
        app = running.deploy(APPS / "ledger")
        run_id = start_run(running, app.name, "braid", str(ledger), 5, 8, 0.2)
        wait_for_events(running, run_id, 20)
        wait_until(lambda: _is_under_way(ledger), 10, "a step is under way")
        kill(running, app)

        _check_braid(running, run_id, ledger)


@pytest.mark.parametrize("kill", ONE_PROGRAM)
def test_a_chess_match_survives_the_death_of(kill: Kill, short_home: Path) -> None:
    with platform(short_home) as running:
        app = running.deploy(EXAMPLES / "chess")
        run_id = _start_match(app)
        wait_for_events(running, run_id, 20)
        kill(running, app)

        _check_match(running, app, run_id)


def test_everything_may_die_at_once(short_home: Path) -> None:
    ledger = short_home / "ledger"
    with platform(short_home) as running:
        apps = [running.deploy(APPS / "ledger"), running.deploy(EXAMPLES / "chess")]
        match = _start_match(apps[1])
        wait_for_events(running, match, 20)
        braid = start_run(running, "ledger", "braid", str(ledger), 5, 8, 0.2)
        wait_until(lambda: _is_under_way(ledger), 10, "a step is under way")
        kill_everything(running, apps[0])

    with platform(short_home) as again:
        port = again.http.rpartition(":")[2]
        _check_braid(again, braid, ledger)
        moved = App(name="chess", deployment="", layer="", url=f"http://chess.localhost:{port}")
        _check_match(again, moved, match)


def _check_braid(running: Platform, run_id: str, ledger: Path) -> None:
    assert wait_for_result(running, run_id)["status"] == "completed", running.logs()
    events = read_events(running, run_id)
    check_each_result_once(events)
    check_ledger(events, ledger)
    assert of_type(events, "attempt_lost")  # a step was under way when the kill came


def _check_match(running: Platform, app: App, run_id: str) -> None:
    assert wait_for_result(running, run_id)["status"] == "completed", running.logs()
    check_each_result_once(read_events(running, run_id))
    with app.client() as client:
        pgn = client.get(f"/matches/{run_id}/pgn").raise_for_status().text
    game = chess.pgn.read_game(io.StringIO(pgn))

    assert game is not None
    assert not game.errors
    assert game.headers["Result"] in ("1-0", "0-1", "1/2-1/2")


def _start_match(app: App) -> str:
    with app.client() as client:
        return str(client.post("/matches").raise_for_status().json()["id"])


def _is_under_way(ledger: Path) -> bool:
    text = ledger.read_text() if ledger.exists() else ""
    return text.count("start ") > text.count("end ")
