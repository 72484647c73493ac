"""The program itself: `python -m fluvial_gateway` starts, tells so, serves, and stops in order."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.integration.control.gateway_process import TOKEN, prepared, started

STOP_SECONDS = 15.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return prepared(tmp_path)


def test_gateway_serves_and_stops_on_sigterm(environment: dict[str, str]) -> None:
    with started(environment) as (program, control, http):
        assert httpx.get(f"{control}/readyz").status_code == 200
        allowed = httpx.get(f"{control}/v1/apps", headers={"authorization": f"Bearer {TOKEN}"})
        assert allowed.json() == {"apps": []}
        assert httpx.get(f"{control}/v1/apps").status_code == 401
        assert httpx.get(http).status_code == 404  # nothing is deployed

        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=STOP_SECONDS)
        assert program.returncode == 0
        assert '"stopped"' in log
        assert TOKEN not in log


def test_wrong_configuration_names_its_variable(environment: dict[str, str]) -> None:
    broken = {**environment, "FLUVIAL_STORE": "mysql://root:hunter2@db"}
    ended = subprocess.run(
        [sys.executable, "-m", "fluvial_gateway"],
        env=broken,
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
        check=False,
    )

    assert ended.returncode == 1
    assert "FLUVIAL_STORE" in ended.stderr
    assert "hunter2" not in ended.stderr
    assert "Traceback" not in ended.stderr
