"""`fluvial runs why` on a whole platform, where instances are what is waited for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fluvial.client import Client
from fluvial_deploy.up.home import Home

FLOWS = """
import asyncio
from pathlib import Path

from fluvial import Hook, step, workflow

if Path({broken!r}).exists():
    raise RuntimeError("broken on purpose")

@step
async def work(name: str) -> None:
    await asyncio.sleep(600)

@workflow
async def working(name: str) -> None:
    await work(name)

@workflow
async def asking() -> object:
    async with Hook() as hook:
        return await hook
"""
MANIFEST = """
[tool.fluvial.instance]
max_instances = 1
max_concurrency = 1
"""


@pytest.fixture(scope="module")
def flows(platform: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    source = tmp_path_factory.mktemp("flows")
    _deploy(platform, source, "flows", broken=source / "never")
    return platform


def _deploy(platform: Any, source: Path, name: str, *, broken: Path) -> None:
    """Deploy the app so that it cannot be imported while the file `broken` exists."""
    (source / "main.py").write_text(FLOWS.format(broken=str(broken)))
    (source / "pyproject.toml").write_text(MANIFEST)
    deployed = platform.run("deploy", str(source), "--name", name)
    assert deployed.returncode == 0, deployed.stderr


def _why(flows: Any, run_id: str, *options: str) -> str:
    said = flows.run("runs", "why", run_id, *options)
    assert said.returncode == 0, said.stderr
    return str(said.stdout)


def _started(flows: Any, workflow: str, *arguments: str, until: str, app: str = "flows") -> str:
    """Start a run and wait until its log has an event of a type; return its id."""
    run_id = str(flows.run("start", app, workflow, *arguments).stdout.strip())
    token = Home(flows.home).token_file.read_text().strip()
    with Client(flows.ready["control"], token) as client:
        assert any(event["type"] == until for event in client.follow(run_id))
    return run_id


def test_a_run_waits_for_an_instance_of_a_deployment_that_is_at_its_limit(flows: Any) -> None:
    first = _started(flows, "working", '"a"', until="step_scheduled")
    second = _started(flows, "working", '"b"', until="run_started")

    said = _why(flows, second)
    assert re.search(r"^It waits for .* for an instance to execute its own code: ", said), said
    assert "1 of at most 1 run and have no room, with 1 in the queue." in said
    executing = r"^It waits for its step work \(operation 1\), executing .* on ins_\w+\.\n$"
    assert re.search(executing, _why(flows, first))
    for run_id in (first, second):
        flows.run("runs", "terminate", run_id)


def test_the_sentence_is_told_with_the_run_and_as_json(flows: Any) -> None:
    run_id = _started(flows, "asking", until="hook_opened")
    found = json.loads(_why(flows, run_id, "--json", "--data"))

    assert found["sentence"].startswith("It waits for a payload for its hook hook_")
    assert "whose token is secret" in _why(flows, run_id)
    shown = flows.run("runs", "show", run_id).stdout
    assert re.search(r"^waiting +It waits for a payload", shown, re.MULTILINE)
    token = found["waits_for"][0]["token"]
    assert flows.run("hooks", "resume", token, '"yes"', "--app", "flows").returncode == 0
    assert flows.run("runs", "result", run_id).stdout == '"yes"\n'
    assert re.search(r"^It completed at .* and waits for nothing\.$", _why(flows, run_id))
    assert "waiting " not in flows.run("runs", "show", run_id).stdout


def test_a_run_whose_code_cannot_be_imported_says_so(flows: Any, tmp_path: Path) -> None:
    broken = tmp_path / "is-broken"
    _deploy(flows, tmp_path, "breaking", broken=broken)
    broken.touch()
    run_id = _started(flows, "asking", until="run_paused", app="breaking")

    said = _why(flows, run_id)
    assert "import_failed: " in said
    assert "broken on purpose" in said
    assert f"then `fluvial runs resume {run_id} --deployment latest`." in said
