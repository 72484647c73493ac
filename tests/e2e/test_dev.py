"""`fluvial dev`: code follows its files, live runs follow the code, and nothing is left behind."""

from __future__ import annotations

import json
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.installation import environment
from tests.e2e.processes import descendants

SECONDS = 60.0
COMMAND = (sys.executable, "-m", "fluvial_deploy", "dev")
MAIN = """
import os
from fluvial import Hook, start, step, workflow

COLOUR = os.environ["COLOUR"]
print("imported", COLOUR)

@step
async def note(text: str) -> str:
    return text

@workflow
async def ask(token: str) -> str:
    first = await note("asked")
    async with Hook(token=token) as hook:
        answer = await hook
    return f"{first} {answer} VERSION"

async def app(request):
    if request.path.startswith("/start/"):
        return 200, {"run": (await start(ask, request.path[7:])).id}
    return 200, {"colour": COLOUR, "version": "VERSION"}
"""


class Dev:
    """A running `fluvial dev`, and what it tells."""

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.process = process
        self.url = ""
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.ready = self.event("ready")

    def event(self, name: str, fits: Callable[[dict[str, Any]], bool] = bool) -> dict[str, Any]:
        """Wait for an event; those before it are gone."""
        while True:
            found = self._events.get(timeout=SECONDS)
            assert found is not None, f"dev ended without {name!r}"
            if found["event"] == name and fits(found):
                return found

    def deployed(self) -> dict[str, Any]:
        found = self.event("deployed")
        self.url = found["urls"][0]
        return found

    def write(self, version: str, text: str = MAIN) -> None:
        (self.folder / "main.py").write_text(text.replace("VERSION", version))

    def get(self, path: str = "/") -> Any:
        return httpx.get(f"{self.url}{path}", timeout=SECONDS).raise_for_status().json()

    def api(self) -> httpx.Client:
        token = (Path(self.ready["home"]) / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.ready["control"], headers=headers, timeout=SECONDS)

    def result(self, run_id: str) -> Any:
        with self.api() as api:
            path = f"/v1/runs/{run_id}/result"
            return api.get(path, params={"wait": 30}).raise_for_status().json()["result"]

    def resume(self, token: str) -> None:
        with self.api() as api:
            api.post(f"/v1/hooks/lamp/{token}", json="yes").raise_for_status()

    def wait_for(self, run_id: str, event: str) -> None:
        """Wait until a run's log has an event of a type."""
        with (
            self.api() as api,
            api.stream(
                "GET", f"/v1/runs/{run_id}/events", headers={"accept": "text/event-stream"}
            ) as response,
        ):
            for line in response.iter_lines():
                if line.startswith("data:") and json.loads(line[5:])["type"] == event:
                    return
        raise AssertionError(f"{run_id} has ended")

    def interrupt(self) -> None:
        """Do as a person with Ctrl-C."""
        pids = descendants(self.process.pid)
        assert pids
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(SECONDS) == 0
        self._reader.join(SECONDS)
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as out:
            for line in out:
                self._events.put(json.loads(line))
        self._events.put(None)


@contextmanager
def dev(folder: Path, *options: str) -> Generator[Dev]:
    with (folder.parent / "dev.err").open("a") as errors:
        process = subprocess.Popen(
            [*COMMAND, str(folder), "--port", "0", "--json", *options],
            env=environment(folder.parent),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    running = Dev(folder, process)
    try:
        yield running
    except BaseException:
        print((folder.parent / "dev.err").read_text())  # noqa: T201 pytest shows it
        raise
    finally:
        if process.poll() is None:
            running.interrupt()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with an app; its path is short, since sockets live below it."""
    parent = Path(tempfile.mkdtemp(prefix="fvd-"))
    made = parent / "lamp"
    made.mkdir()
    (made / "main.py").write_text(MAIN.replace("VERSION", "one"))
    (made / ".env").write_text("COLOUR=red\n")
    yield made
    shutil.rmtree(parent, ignore_errors=True)


def test_code_follows_its_files_and_mistakes_leave_the_last_good_code(folder: Path) -> None:
    with dev(folder, "--ephemeral") as running:
        first = running.deployed()
        assert running.get() == {"colour": "red", "version": "one"}
        assert running.event("log")["record"]["message"] == "imported red"

        running.write("two")
        assert running.event("changed")["paths"] == ["main.py"]
        assert running.deployed()["deployment"] != first["deployment"]
        assert running.get() == {"colour": "red", "version": "two"}

        running.write("three", f"{MAIN}\nraise ValueError('a mistake')\n")
        failed = running.event("failed")
        assert (failed["code"], "a mistake" in failed["message"]) == ("import_failed", True)
        assert running.get()["version"] == "two"
        running.write("two")
        assert not running.deployed()["created"]

        (folder / ".env.local").write_text("COLOUR=blue\n")
        assert running.deployed()["created"]
        assert running.get() == {"colour": "blue", "version": "two"}

        home = Path(running.ready["home"])
        running.interrupt()
        assert not home.exists()
        assert sorted(path.name for path in folder.iterdir()) == [".env", ".env.local", "main.py"]


def test_live_runs_follow_the_code_across_reloads_and_restarts(folder: Path) -> None:
    with dev(folder) as running:
        running.deployed()
        followed, stayed = (running.get(f"/start/{token}")["run"] for token in ("a", "b"))
        for run_id in (followed, stayed):
            running.wait_for(run_id, "hook_opened")

        running.write("two")
        moved = running.deployed()["deployment"]
        runs = {running.event("run_moved")["run_id"] for _ in range(2)}
        assert runs == {followed, stayed}
        running.resume("a")
        assert running.result(followed) == "asked yes two"

        running.write("three", MAIN.replace('note("asked")', 'note(await note("asked"))'))
        running.deployed()
        stays = running.event("run_stays")
        assert stays["run_id"] == stayed
        assert "+ now:      STEP_SCHEDULED note" in stays["detail"]
        with running.api() as api:
            assert api.get(f"/v1/runs/{stayed}").json()["deployment"] == moved
            # As a session leaves it that is killed between the two halves of a move.
            pause = {"reason": "fluvial dev moves it to new code"}
            api.post(f"/v1/runs/{stayed}/pause", json=pause).raise_for_status()
        running.wait_for(stayed, "run_paused")
        running.interrupt()

    with dev(folder) as running:
        assert not running.deployed()["created"]
        assert running.event("run_stays")["run_id"] == stayed
        running.resume("b")
        assert running.result(stayed) == "asked yes two"
