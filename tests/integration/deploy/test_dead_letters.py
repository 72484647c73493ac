"""`fluvial runs dead-letters` and `redrive` on a whole platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fluvial.client import Client
from fluvial_deploy.up.home import Home

FLOWS = """
from pathlib import Path

from fluvial import step, workflow

@step(retries=0, exhausted="pause")
async def charge(order: str) -> str:
    if not Path({mended!r}).exists():
        raise ConnectionError("no route to the bank")
    return f"charged {{order}}"

@workflow
async def fulfil(order: str) -> str:
    return await charge(order)
"""


@pytest.fixture
def mended(tmp_path: Path) -> Path:
    """A file; once it exists, what has failed works."""
    return tmp_path / "is-mended"


@pytest.fixture
def stuck(platform: Any, mended: Path, tmp_path: Path) -> list[str]:
    """Three runs whose step has used up its attempts."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text(FLOWS.format(mended=str(mended)))
    deployed = platform.run("deploy", str(tmp_path / "app"), "--name", "bank")
    assert deployed.returncode == 0, deployed.stderr
    token = Home(platform.home).token_file.read_text().strip()
    with Client(platform.ready["control"], token) as client:
        runs = [client.start("bank", "fulfil", [f"o-{n}"]).run_id for n in range(3)]
        for run_id in runs:
            assert any(event["type"] == "run_paused" for event in client.follow(run_id))
    return runs


def test_dead_letters_are_listed_and_redriven(
    platform: Any, stuck: list[str], mended: Path
) -> None:
    listed = platform.run("runs", "dead-letters", "--app", "bank").stdout.splitlines()
    assert {line.split("\t")[0] for line in listed} == set(stuck)
    reason = "step charge has used up its attempts (1 so far): exception"
    assert {tuple(line.split("\t")[1:4]) for line in listed} == {("bank", "fulfil", "exhausted")}
    assert all(line.endswith(f"Z\t{reason}") for line in listed)

    for mistake in ((), (stuck[0], "--app", "bank"), ("--app", "bank")):
        assert platform.run("runs", "redrive", *mistake).returncode == 2
    which = ("--app", "bank", "--code", "exhausted")
    tried = json.loads(platform.run("runs", "redrive", *which, "--dry-run", "--json").stdout)
    assert (set(tried["matched"]), tried["redriven"]) == (set(stuck), [])
    mended.touch()
    assert platform.run("runs", "redrive", stuck[0]).stderr == "redriven: 1\n"
    assert platform.run("runs", "result", stuck[0]).stdout == '"charged o-0"\n'
    done = platform.run("runs", "redrive", *which, "--yes", "--deployment", "latest")
    assert (set(done.stdout.split()), done.stderr) == (set(stuck[1:]), "redriven: 2\n")
    for run_id in stuck[1:]:
        assert platform.run("runs", "result", run_id).returncode == 0
    assert platform.run("runs", "dead-letters", "--app", "bank").stdout == ""
