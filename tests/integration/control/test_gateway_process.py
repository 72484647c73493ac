"""The program itself: `python -m fluvial_gateway` starts, tells so, serves, and stops in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

STOP_SECONDS = 15.0
TOKEN = "flv_" + "t" * 43


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run").mkdir()
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLUVIAL_")},
        "FLUVIAL_HOME": str(tmp_path),
        "FLUVIAL_RUN_DIR": str(tmp_path / "run"),
        "FLUVIAL_STORE": "memory://",
    }


@contextmanager
def _started(
    environment: dict[str, str],
) -> Generator[tuple[subprocess.Popen[str], str, str], None, None]:
    """Yield (the program, its control URL, its HTTP URL) once it is ready."""
    ready, tell = os.pipe()
    with (
        socket.create_server(("127.0.0.1", 0)) as http,
        socket.create_server(("127.0.0.1", 0)) as control,
        open(ready, "rb") as answer,
    ):
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}" for each in (control, http)]
        inherited = (http.fileno(), control.fileno(), tell)
        program = subprocess.Popen(
            [sys.executable, "-m", "fluvial_gateway"],
            env={
                **environment,
                "FLUVIAL_HTTP_FD": str(http.fileno()),
                "FLUVIAL_CONTROL_FD": str(control.fileno()),
                "FLUVIAL_READY_FD": str(tell),
                "FLUVIAL_CONTROL_URL": urls[0],
                "FLUVIAL_HTTP_URL": urls[1],
            },
            pass_fds=inherited,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(tell)
        try:
            assert answer.readline() == b"READY\n"
            yield program, urls[0], urls[1]
        finally:
            program.kill()
            program.communicate()


def test_gateway_serves_and_stops_on_sigterm(environment: dict[str, str]) -> None:
    with _started(environment) as (program, control, http):
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
