"""Upgrading code under live runs, with the command line, on a real platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.histories import of_type, read_events, start_run, wait_for_events, wait_for_result
from tests.e2e.installation import App, Platform, wait_until

BUNDLE: Final = """
import fluvial

MODE = {mode}

@fluvial.step
async def charge(order: str) -> str:
    return f"charged {{order}}"

@fluvial.step
async def refund(order: str) -> str:
    return f"refunded {{order}}"

@fluvial.workflow
async def fulfil(order: str) -> list[str]:
    first = await (charge if MODE == "charge" else refund)(order)  # the line
    async with fluvial.Hook(token=f"go:{{order}}") as hook:
        await hook
    return [first, await {last}(order)]
"""
LINE: Final = BUNDLE.splitlines().index(
    '    first = await (charge if MODE == "charge" else refund)(order)  # the line'
)


def bundle(folder: Path, *, mode: str, last: str = "charge") -> Path:
    """Write a bundle whose workflow calls `charge` or `refund` first, and `last` in the end."""
    folder.mkdir(exist_ok=True)
    (folder / "main.py").write_text(BUNDLE.format(mode=mode, last=last))
    # No snapshot: what it has imported would stay as it was, and a test changes that.
    (folder / "fluvial.toml").write_text(
        'name = "upgraded"\n[instance]\nsnapshot = "off"\n', encoding="utf-8"
    )
    return folder


def production(platform: Platform) -> str:
    with platform.api() as api:
        return str(api.get("/v1/apps/upgraded").raise_for_status().json()["production"])


@pytest.fixture
def waiting(running: Platform, tmp_path: Path) -> tuple[App, str]:
    """An app, and a run of it that has charged and waits for a hook."""
    app = running.deploy(bundle(tmp_path / "app", mode="'charge'"))
    run_id = start_run(running, "upgraded", "fulfil", "book")
    wait_for_events(running, run_id, 4)
    return app, run_id


def resume_hook(platform: Platform) -> None:
    done = platform.command("hooks", "resume", "go:book", "true", "--app", "upgraded")
    assert done.returncode == 0, done.stderr


def test_live_runs_are_checked_before_anything_moves(
    running: Platform, waiting: tuple[App, str], tmp_path: Path
) -> None:
    app, run_id = waiting
    changed = str(bundle(tmp_path / "changed", mode="'refund'"))
    fine = str(bundle(tmp_path / "fine", mode="'charge'", last="refund"))

    checked = running.command("replay", "--check", changed)
    as_json = running.command("replay", "--check", changed, "--json")
    refused = running.command("deploy", changed, "--check-replay")

    assert checked.returncode == refused.returncode == 1
    found, workflow, finding, about = checked.stdout.strip().split("\t")
    assert (found, workflow, finding) == (run_id, "fulfil", "diverged")
    assert about == (
        "- recorded: STEP_SCHEDULED charge (operation 1)"
        f" + now: STEP_SCHEDULED refund (operation 1) at main.py:{LINE + 1} in fulfil"
    )
    assert "0 ok, 1 diverged, 0 not checked" in checked.stderr
    assert json.loads(as_json.stdout)["report"]["diverged"] == 1
    assert "fluvial replay --check --deployment dpl_" in refused.stderr
    assert refused.stdout == ""
    assert production(running) == app.deployment

    deployed = running.command("deploy", fine, "--check-replay", "--json")
    assert deployed.returncode == 0, deployed.stderr
    assert production(running) == json.loads(deployed.stdout)["deployment"]["deployment"]
    resume_hook(running)
    assert wait_for_result(running, run_id)["result"] == ["charged book", "charged book"]

    ended = running.command(
        *("replay", "--check", "--deployment", production(running), "--last", "1", "--inputs")
    )
    assert ended.returncode == 1  # the run has ended where the last step was another one
    assert "+ now: STEP_SCHEDULED refund (operation 3)" in ended.stdout


def test_a_run_that_diverges_is_paused_and_goes_on_where_it_is_fixed(
    running: Platform, tmp_path: Path
) -> None:
    mode = tmp_path / "mode"
    mode.write_text("charge")
    reading = f"open({str(mode)!r}).read()"  # differs from one import to the next
    app = running.deploy(bundle(tmp_path / "app", mode=reading))
    run_id = start_run(running, "upgraded", "fulfil", "book")
    wait_for_events(running, run_id, 4)
    mode.write_text("refund")
    running.kill_instances(app)
    resume_hook(running)
    wait_until(lambda: shown(running, run_id)["status"] == "paused", 30, "the run is paused")

    text = running.command("runs", "show", run_id).stdout.splitlines()
    reason = [line.strip() for line in text if "recorded:" in line or "now:" in line]
    assert reason == [
        "- recorded: STEP_SCHEDULED charge (operation 1)",
        f"+ now:      STEP_SCHEDULED refund (operation 1) at main.py:{LINE + 1} in fulfil",
    ]
    events = running.command("runs", "events", run_id).stdout
    assert "         - recorded: STEP_SCHEDULED charge (operation 1)" in events

    fixed = running.deploy(bundle(tmp_path / "app", mode="'charge'"), "--check-replay")
    moved = running.command("runs", "resume", run_id, "--deployment", "latest")
    assert moved.returncode == 0, moved.stderr
    assert wait_for_result(running, run_id)["result"] == ["charged book", "charged book"]
    assert shown(running, run_id)["deployment"] == fixed.deployment
    (resumed,) = of_type(read_events(running, run_id), "run_resumed")
    assert resumed["meta"]["deployment"] == fixed.deployment


def shown(platform: Platform, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(platform.command("runs", "show", run_id, "--json").stdout)
    return found
