"""Rows about development: how soon a change of the code is what answers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.benchmarks.figures import Figure
from tests.benchmarks.systems import free_port

_APP = Path(__file__).parent / "fastapi_app"
_PAIRS = 10
_MESSAGE = "Hello, World"
_LOOK_SECONDS = 0.005
_QUIET_SECONDS = 0.5  # between two saves: both watchers rest
_UVICORN = ("-m", "uvicorn", "main:app", "--reload", "--log-level", "warning")


def d1() -> Iterator[Figure]:
    """From the save of a file to the new answer: `fluvial dev` against `uvicorn --reload`."""
    with _dev() as ours, _uvicorn() as theirs:
        for each in (ours, theirs):
            each.save_ms("warm")
        pairs = [(ours.save_ms(f"{n}"), theirs.save_ms(f"{n}")) for n in range(_PAIRS)]
    yield Figure(
        "D1 save to new answer, FastAPI",
        "ms",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "< 1,000 ms",
    )


class _Reloading:
    """A served folder whose code is changed again and again."""

    def __init__(self, folder: Path, url: str) -> None:
        self._file = folder / "main.py"
        self._source = self._file.read_text()
        self._client = httpx.Client(
            base_url=url, timeout=30, transport=httpx.HTTPTransport(retries=20)
        )
        self._client.get("/")

    def save_ms(self, message: str) -> float:
        """Save other code; return how long it takes until that answers."""
        time.sleep(_QUIET_SECONDS)
        self._file.write_text(self._source.replace(_MESSAGE, message))
        began = time.perf_counter()
        while self._answer() != message:
            time.sleep(_LOOK_SECONDS)
        return 1000 * (time.perf_counter() - began)

    def _answer(self) -> str | None:
        try:
            return str(self._client.get("/").json()["message"])
        except httpx.TransportError:  # a server that is just being replaced
            return None


@contextmanager
def _dev() -> Generator[_Reloading]:
    with _folder() as folder:
        command = (sys.executable, "-m", "fluvial_deploy", "dev", str(folder))
        process = subprocess.Popen(
            [*command, "--ephemeral", "--json", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        events = map(json.loads, process.stdout)
        deployed = next(event for event in events if event["event"] == "deployed")
        try:
            yield _Reloading(folder, deployed["urls"][0])
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)


@contextmanager
def _uvicorn() -> Generator[_Reloading]:
    with _folder() as folder:
        port = free_port()
        process = subprocess.Popen([sys.executable, *_UVICORN, "--port", f"{port}"], cwd=folder)
        try:
            yield _Reloading(folder, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait(30)


@contextmanager
def _folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="fv-") as parent:
        yield Path(shutil.copytree(_APP, Path(parent) / "hello"))
