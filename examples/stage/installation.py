"""`fluvial up` as a child process: in a folder of its own, on free ports, gone at the end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.05  # how often a condition is looked at that nothing announces


class TourError(Exception):
    """The tour cannot go on; the message says why, for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A running platform."""

    home: Path
    http: str
    control: str

    @property
    def token(self) -> str:
        """The administrator's token."""
        return (self.home / "token").read_text().strip()

    def command(self, *arguments: str, say: Callable[[str], None]) -> str:
        """Run the command line; hand its talk to `say` line by line, return its data.

        Raises:
            TourError: it failed.
        """
        child = subprocess.Popen(
            [*_FLUVIAL, *arguments],
            env=_environment(self.home) | {"FLUVIAL_URL": self.control},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout is not None
            assert child.stderr is not None
            for line in child.stderr:
                say(line.rstrip())
            data = child.stdout.read()
        if child.returncode != 0:
            raise TourError(f"`fluvial {' '.join(arguments)}` ended with {child.returncode}")
        return data.strip()


@contextmanager
def installation(*options: str) -> Generator[Installation]:
    """Start a platform, and stop it and remove its folder afterwards.

    Raises:
        TourError: it does not start.
    """
    home = Path(tempfile.mkdtemp(prefix="fluvial-"))
    try:
        with (home / "up.log").open("wb") as log:
            child = subprocess.Popen(
                [*_FLUVIAL, "up", "--http", "127.0.0.1:0", "--control", "127.0.0.1:0", *options],
                env=_environment(home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C goes to the tour alone, which then stops this in order
            )
        try:
            yield _ready(child, home)
        finally:
            _stop(child)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Look at `condition` again and again until it holds.

    Raises:
        TourError: it did not within `seconds`; the message names `what`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TourError(f"{what}: not within {seconds:.0f} seconds")
        time.sleep(LOOK_SECONDS)


_FLUVIAL: Final = (sys.executable, "-m", "fluvial_deploy")


def _environment(home: Path) -> dict[str, str]:
    """Return the caller's environment without settings of another platform."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUVIAL_")}
    return kept | {"FLUVIAL_HOME": str(home), "NO_COLOR": "1"}


def _ready(child: subprocess.Popen[bytes], home: Path) -> Installation:
    state: dict[str, Any] = {}

    def is_up() -> bool:
        if child.poll() is not None:
            log = (home / "up.log").read_text(errors="replace").strip()
            raise TourError(f"`fluvial up` ended with {child.returncode}:\n{log}")
        state.update(_state(home))
        return bool(state)

    wait_until(is_up, READY_SECONDS, "the platform is ready")
    return Installation(home=home, http=state["http"], control=state["control"])


def _state(home: Path) -> dict[str, Any]:
    """Return what the running platform says about itself; {} before it is ready."""
    try:
        return json.loads((home / "run" / "up.json").read_text())
    except FileNotFoundError:
        return {}


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the platform to stop in order; if it does not, end it."""
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
