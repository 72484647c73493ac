"""A real `fluvial up` for end-to-end tests, and what tests do with it through its front doors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from tests.e2e.differential import client_of

READY_SECONDS: Final = 60.0
COMMAND_SECONDS: Final = 180.0  # a deploy installs dependencies
STOP_SECONDS: Final = 40.0
ZERO_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05
_LOG_CHARACTERS: Final = 4000
_FLUVIAL: Final = (sys.executable, "-m", "fluvial_deploy")


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A deployed app, reached as a client would: by its host name, here on loopback."""

    name: str
    deployment: str
    layer: str
    url: str

    @property
    def host(self) -> str:
        """The Host header that leads to the app."""
        return urlsplit(self.url).netloc

    def client(self) -> httpx.Client:
        """Return a client of the app."""
        return client_of(urlsplit(self.url).port or 80, self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A running platform."""

    home: Path
    process: subprocess.Popen[bytes]
    http: str
    control: str

    def api(self) -> httpx.Client:
        """Return a client of the control API with all rights."""
        token = (self.home / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.control, headers=headers, timeout=httpx.Timeout(90.0))

    def command(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Run the command line against this platform; `typed` is its standard input."""
        return subprocess.run(
            [*_FLUVIAL, *arguments],
            env=environment(self.home) | {"FLUVIAL_URL": self.control},
            input=typed,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def deploy(self, folder: Path, *options: str) -> App:
        """Deploy a folder with the command line."""
        done = self.command("deploy", str(folder), *options)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        url = done.stdout.strip().splitlines()[-1]
        with self.api() as api:
            newest = api.get("/v1/deployments", params={"limit": 1}).raise_for_status().json()
        found = newest["deployments"][0]
        return App(name=found["app"], deployment=found["deployment"], layer=found["layer"], url=url)

    def layer(self, app: App) -> Path:
        """Return the folder with an app's dependencies."""
        return self.home / "layers" / app.layer

    def instances(self, app: App) -> list[dict[str, Any]]:
        """Return the instances that serve an app now."""
        with self.api() as api:
            found = api.get("/v1/instances").raise_for_status().json()["instances"]
        return [instance for instance in found if instance["app"] == app.name]

    def wait_for_zero(self, app: App) -> None:
        """Wait until the app has no instance."""
        wait_until(lambda: not self.instances(app), ZERO_SECONDS, f"{app.name} is at zero")

    def kill_instances(self, app: App) -> list[int]:
        """Kill the app's instances with SIGKILL and return their process ids."""
        pids = [int(instance["pid"]) for instance in self.instances(app)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return pids

    def logs(self) -> str:
        """Return the ends of all logs, for the message of a failure."""
        texts = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-_LOG_CHARACTERS:]}"
            for path in sorted(self.home.glob("**/*.log"))
        ]
        return "\n".join(texts)


@contextmanager
def platform(home: Path, *options: str, command: Sequence[str] = _FLUVIAL) -> Generator[Platform]:
    """Run `fluvial up` on free ports with the home `home`; `command` is the command line."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "up", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0", *options],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        state = _ready_state(process, home)
        yield Platform(home=home, process=process, http=state["http"], control=state["control"])
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a platform to stop in order, and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def environment(home: Path) -> dict[str, str]:
    """Return this process's environment, without settings of another platform."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUVIAL_")}
    return kept | {"FLUVIAL_HOME": str(home)}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look again and again, at what nothing announces to an outsider, until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} seconds"
        time.sleep(_LOOK_SECONDS)


def _ready_state(process: subprocess.Popen[bytes], home: Path) -> dict[str, Any]:
    state: dict[str, Any] = {}

    def is_up() -> bool:
        log = home / "up.log"
        assert process.poll() is None, f"`fluvial up` ended: {log.read_text(errors='replace')}"
        path = home / "run" / "up.json"
        if path.exists():
            state.update(json.loads(path.read_text()))
        return state.get("pid") == process.pid  # not a killed predecessor's

    wait_until(is_up, READY_SECONDS, "`fluvial up` is ready")
    return state
