"""The systems that the benchmarks compare: each started for real, and its CPU counted whole."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fluvial_queue.contract import Durability
from fluvial_queue.redis.embedded import EmbeddedValkey

REPO = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_READY_SECONDS = 60.0
_UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")


def cpu_seconds(root: int) -> float:
    """Return user + system CPU of a process, its living descendants and its reaped children."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        children.setdefault(int(fields[1]), []).append(int(entry.name))
        ticks[int(entry.name)] = sum(int(field) for field in fields[11:15])
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += children.get(pid, [])
    return total / _TICKS


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Fluvial:
    """A running `fluvial up` with an app deployed."""

    pid: int
    http: str
    control: str
    home: Path

    def deploy(self, bundle: Path, name: str) -> None:
        """Deploy another app."""
        subprocess.run(
            [sys.executable, "-m", "fluvial_deploy", "deploy", str(bundle), "--name", name],
            env={**os.environ, "FLUVIAL_HOME": str(self.home), "FLUVIAL_URL": self.control},
            check=True,
            capture_output=True,
        )

    def survey(self) -> dict[str, list[dict[str, Any]]]:
        """Return the instances, zygotes and snapshots that exist now."""
        token = (self.home / "token").read_text().strip()
        headers = {"authorization": f"Bearer {token}"}
        answer: dict[str, list[dict[str, Any]]] = (
            httpx.get(f"{self.control}/v1/instances", headers=headers).raise_for_status().json()
        )
        return answer

    def play(self, **query: str | int) -> dict[str, Any]:
        """Ask the benchmark's bundle to play runs; return what it measured."""
        headers = {"host": "handoff.localhost"}
        reply = httpx.get(f"{self.http}/run", params=query, headers=headers, timeout=280)
        answer: dict[str, Any] = reply.raise_for_status().json()
        return answer


@contextmanager
def fluvial(
    durability: Durability, bundle: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Generator[Fluvial]:
    """Run `fluvial up` in a fresh home, deploy `bundle`, and stop it afterwards."""
    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        home = Path(folder)
        environment = {**os.environ, "FLUVIAL_HOME": folder, **(variables or {})}
        command = [sys.executable, "-m", "fluvial_deploy"]
        addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
        listening = ["--http", addresses[0], "--control", addresses[1]]
        up = subprocess.Popen(
            [*command, "up", "--json", "--durability", durability, *listening, *options],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=(home / "up.log").open("wb"),
        )
        try:
            _await_line(up)
            environment["FLUVIAL_URL"] = f"http://{addresses[1]}"
            subprocess.run(
                [*command, "deploy", str(bundle)], env=environment, check=True, capture_output=True
            )
            yield Fluvial(up.pid, f"http://{addresses[0]}", f"http://{addresses[1]}", home)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(30)


def _await_line(process: subprocess.Popen[bytes]) -> dict[str, object]:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], _READY_SECONDS)
    line = process.stdout.readline() if ready else b""
    if not line:
        process.kill()
        raise RuntimeError("`fluvial up` did not say that it is ready")
    answer: dict[str, object] = json.loads(line)
    return answer


@dataclass(frozen=True, slots=True)
class Taskiq:
    """A running taskiq worker on its own Valkey; `url` is where tasks are sent."""

    url: str
    worker_pid: int
    store_pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU of the worker and the store."""
        return cpu_seconds(self.worker_pid) + cpu_seconds(self.store_pid)

    def play(self, *, tasks: int, in_flight: int) -> dict[str, Any]:
        """Send tasks and wait for their results; return what the client measured."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.taskiq_client", str(tasks), str(in_flight)],
            cwd=REPO,
            env={**os.environ, "BENCH_REDIS": self.url},
            check=True,
            capture_output=True,
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@contextmanager
def taskiq(durability: Durability) -> Generator[Taskiq]:
    """Run a taskiq worker and its store, with the store's durability as named."""
    with tempfile.TemporaryDirectory(prefix="tq-") as folder:
        runner = asyncio.Runner()
        store = EmbeddedValkey(
            Path(folder), durability=durability, socket_path=Path(folder) / "s.sock"
        )
        runner.run(store.start())
        url = f"unix://{folder}/s.sock"
        environment = {**os.environ, "BENCH_REDIS": url}
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "taskiq",
                "worker",
                "--workers",
                "1",
                "tests.benchmarks.taskiq_app:broker",
            ],
            cwd=REPO,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Taskiq(url, worker.pid, store.pid or 0)
        finally:
            worker.terminate()
            worker.wait(30)
            runner.run(store.stop())
            runner.close()


@contextmanager
def uvicorn_direct(app: str, folder: Path) -> Generator[tuple[str, int]]:
    """Serve an ASGI app with plain uvicorn (httptools, uvloop, one worker); yield (url, pid)."""
    port = free_port()
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "uvicorn",
            app,
            "--port",
            str(port),
            "--no-access-log",
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--log-level",
            "warning",
        ],
        cwd=folder,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(retries=20)) as client:
            client.get(url, timeout=30)
        yield url, server.pid
    finally:
        server.terminate()
        server.wait(30)
