"""Planted programs: each non-deterministic one is caught by a replay in another process, or the
guards make it harmless; a benign change raises no alarm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.fluvial.planted import CAUGHT, HARMLESS


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """By program: why its replay in another process diverged; "" if it ended the same."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "this_module_draws.py").write_text(
        "import random, uuid\nDRAWN = [random.random(), uuid.uuid4()]\n"
    )
    process(folder, "record", seed="1", zone="Asia/Tokyo")
    answer = process(folder, "replay", seed="2", zone="America/New_York")
    found: dict[str, str] = json.loads(answer)
    return found


def process(folder: Path, what: str, *, seed: str, zone: str) -> str:
    own = folder / what
    own.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "tests.unit.fluvial.planted", what, str(folder / "logs")],
        cwd=own,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), *sys.path, str(Path.cwd())]),
            "PYTHONHASHSEED": seed,
            "PLANTED": what,
            "TZ": zone,
        },
        stdout=subprocess.PIPE, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip


@pytest.mark.parametrize("name", CAUGHT)
def test_what_differs_between_processes_is_caught(verdicts: dict[str, str], name: str) -> None:
    assert "- recorded: " in verdicts[name]
    assert "+ now:      " in verdicts[name]


@pytest.mark.parametrize("name", HARMLESS)
def test_what_the_guards_answer_is_the_same_everywhere(verdicts: dict[str, str], name: str) -> None:
    assert verdicts[name] == ""
