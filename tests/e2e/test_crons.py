"""Crons on a real platform: declared in a bundle, started by the clock, steered from the shell."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from tests.e2e.installation import Platform, platform, wait_until
from tests.e2e.processes import child

PUNCTUAL: Final = Path(__file__).parent / "apps" / "punctual"
KILLS: Final = 3
STEADY: Final = """
from fluvial import Cron, workflow

@workflow(cron=Cron("@every 1s", overlap="allow", catch_up="all"))
async def steady() -> None: ...
"""
TICK_SECONDS: Final = 30.0  # the first one has to start an instance, on a machine that is busy


def test_crons_start_runs_and_are_steered(running: Platform) -> None:
    app = running.deploy(PUNCTUAL)
    wait_until(lambda: _completed(running) != [], TICK_SECONDS, "a tick's run is over")
    paused = running.command("crons", "pause", "punctual", "often")
    assert paused.returncode == 0, paused.stderr
    run = _completed(running)[0]
    with running.api() as api:
        answer = api.get(f"/v1/runs/{run['run_id']}/result").json()
    told = run["cron"]["tick"].replace("Z", "+00:00")
    assert answer["result"] == f"by the code: often at {told}"
    assert run["key"] == f"cron:often:{run['cron']['tick']}"

    listed = {cron["cron"]: cron for cron in _json(running, "crons", "ls", "punctual")}
    assert listed["often"]["paused"] is True
    assert listed["often"]["counts"]["started"] >= 1
    assert (listed["yearly"]["timezone"], listed["yearly"]["paused"]) == ("Pacific/Chatham", False)
    ticks = running.command("crons", "next", "punctual", "yearly", "-n", "3").stdout.split()
    assert [tick[4:] for tick in ticks] == ["-12-31T10:15:00.000Z"] * 3

    triggered = running.command("crons", "trigger", "punctual", "yearly").stdout.strip()
    done = running.command("runs", "result", triggered, "--wait", "60s")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).startswith("by the manifest: yearly at ")
    shown = running.command("crons", "show", "punctual", "yearly").stdout
    assert "triggered" in shown
    assert running.command("crons", "show", "punctual", "monthly").returncode == 3

    with running.api() as api:
        metrics = api.get("/metrics").text
    assert 'fluvial_cron_ticks_total{app="punctual",outcome="started"' in metrics
    running.wait_for_zero(app)


def test_each_tick_has_one_run_though_the_gateway_is_killed(
    short_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(STEADY)
    (tmp_path / "fluvial.toml").write_text('name = "steady"\n')
    with platform(short_home) as running:
        running.deploy(tmp_path)
        for kill in range(1, KILLS + 1):
            _await_ticks(running, 3 * kill)
            os.kill(child(running, "fluvial_gateway"), signal.SIGKILL)
        _await_ticks(running, 3 * KILLS + 3)
        assert running.command("crons", "pause", "steady", "steady").returncode == 0

        ticks = _ticks(running)
        assert all(later - tick == timedelta(seconds=1) for tick, later in pairwise(ticks)), ticks
        counts = _json(running, "crons", "show", "steady", "steady")["counts"]
        assert counts == {"started": len(ticks)}


def _await_ticks(running: Platform, count: int) -> None:
    wait_until(lambda: len(_ticks(running)) >= count, TICK_SECONDS, f"{count} ticks have runs")


def _ticks(running: Platform) -> list[datetime]:
    """The ticks that have a run, in order; empty while the gateway is away."""
    try:
        with running.api() as api:
            found = api.get("/v1/runs", params={"app": "steady", "limit": 500}).raise_for_status()
    except httpx.HTTPError:
        return []
    return sorted(datetime.fromisoformat(run["cron"]["tick"]) for run in found.json()["runs"])


def _completed(running: Platform) -> list[dict[str, Any]]:
    with running.api() as api:
        found = api.get("/v1/runs", params={"app": "punctual", "status": "completed"})
    runs: list[dict[str, Any]] = found.raise_for_status().json()["runs"]
    return runs


def _json(running: Platform, *arguments: str) -> Any:
    done = running.command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
