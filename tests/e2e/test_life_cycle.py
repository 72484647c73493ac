"""A small slice of the life-cycle campaign, and the life of a deployment by the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.e2e.installation import Platform
from tests.e2e.life_cycle import play_cycles, play_deploys, write_version

CYCLES = 20
DEPLOYS = 3
SEED = 7


def test_no_request_fails_while_instances_come_and_go(running: Platform, tmp_path: Path) -> None:
    app = running.deploy(write_version(tmp_path, 0))
    report = asyncio.run(play_cycles(app, CYCLES, SEED))

    assert report.failures == [], running.logs()
    assert report.cold >= CYCLES


def test_no_request_fails_and_no_run_moves_while_deployments_do(
    running: Platform, tmp_path: Path
) -> None:
    report = asyncio.run(play_deploys(running, tmp_path, DEPLOYS, SEED))

    assert report.failures == [], running.logs()
    assert report.runs == {"completed": DEPLOYS}


def _json(running: Platform, *arguments: str) -> Any:
    done = running.command(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_deployment_lives_from_preview_to_deletion(running: Platform, tmp_path: Path) -> None:
    old = running.deploy(write_version(tmp_path, 1001), "--name", "shop")
    new = running.deploy(write_version(tmp_path, 1002), "--name", "shop", "--no-promote")
    alias = _json(running, "alias", "set", "shop", "qa", new.deployment)
    with old.client() as client:
        assert client.post("/").text == "1001"
        assert client.post("/", headers={"host": alias["url"].partition("//")[2]}).text == "1002"
        assert client.post("/", headers={"x-fluvial-deployment": new.deployment}).text == "1002"

        started = _json(running, "promote", "shop", new.deployment, "--percent", "99")
        assert (started["state"], started["percent"]) == ("active", 99)
        answers = {
            client.post("/", headers={"cookie": f"__fluvial_client={number:016x}"}).text
            for number in range(20)
        }
        assert "1002" in answers
        completed = _json(running, "rollout", "approve", "shop")
        assert completed["production"] == new.deployment
        assert client.post("/").text == "1002"

        refused = running.command("deployments", "rm", new.deployment)
        assert (refused.returncode, "production" in refused.stderr) == (1, True)
        assert _json(running, "deployments", "rm", old.deployment)["state"] == "deleted"
        gone = running.command("deployments", "show", old.deployment)
        assert gone.returncode == 3
        assert client.post("/", headers={"x-fluvial-deployment": old.deployment}).text == "1002"
    moves = _json(running, "alias", "history", "shop")
    assert [move["reason"] for move in moves] == ["rollout", "set", "deploy"]
    assert {move["by"] for move in moves} == {"first admin"}
