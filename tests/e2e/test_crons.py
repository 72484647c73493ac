"""Crons on a real platform: declared in a bundle, started by the clock, steered from the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.e2e.installation import Platform, wait_until

PUNCTUAL: Final = Path(__file__).parent / "apps" / "punctual"
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


def _completed(running: Platform) -> list[dict[str, Any]]:
    with running.api() as api:
        found = api.get("/v1/runs", params={"app": "punctual", "status": "completed"})
    runs: list[dict[str, Any]] = found.raise_for_status().json()["runs"]
    return runs


def _json(running: Platform, *arguments: str) -> Any:
    done = running.command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
