"""Surroundings that do not fit: ports, homes and stores in use or unsafe, memory and disk full."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis

from fluvial_queue.redis.embedded import EmbeddedValkey
from tests.e2e.histories import (
    check_each_result_once,
    read_events,
    start_run,
    wait_for_events,
    wait_for_result,
)
from tests.e2e.installation import App, Platform, environment, platform, wait_until
from tests.e2e.processes import child, descendants
from tests.e2e.small_disks import can_mount, fill, platform_on_small_disk
from tests.e2e.standing import unharmed

APPS: Final = Path(__file__).parent / "apps"
START: Final = "/v1/apps/mistakes/workflows/total/runs"
UP_SECONDS: Final = 60.0
needs_mounts = pytest.mark.skipif(not can_mount(), reason="this machine allows no private mounts")


@pytest.fixture(scope="module")
def mistakes(running: Platform) -> App:
    return running.deploy(APPS / "mistakes")


# ---- fluvial up ----


def test_a_second_up_on_the_same_home_is_refused(running: Platform, mistakes: App) -> None:
    before = descendants(running.process.pid)
    with unharmed(running, mistakes):
        done = _up(running.home)

    assert done.returncode == 1
    assert f"already runs on {running.home}: pid {running.process.pid}" in done.stderr
    assert running.http in done.stderr
    assert _is_one_message(done.stderr)
    assert set(before) <= set(descendants(running.process.pid))


@pytest.mark.parametrize("option", ["--http", "--control"])
def test_a_port_in_use_is_refused(short_home: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = _up(short_home, option, address)

    assert done.returncode == 1
    assert f"{option} {address}" in done.stderr
    assert "in use" in done.stderr
    assert _is_one_message(done.stderr)
    with platform(short_home):  # and nothing of the attempt is in the way
        pass


def test_a_store_that_is_not_there_is_named(short_home: Path) -> None:
    done = _up(short_home, "--store", "redis://:secret@127.0.0.1:1")

    assert done.returncode == 1
    assert "cannot reach redis://127.0.0.1:1" in done.stderr
    assert "secret" not in done.stderr
    assert _is_one_message(done.stderr)


def test_a_store_that_may_delete_runs_is_refused(short_home: Path, valkey: EmbeddedValkey) -> None:
    path = valkey.url.removeprefix("unix://").partition("?")[0]
    url = f"unix://{path}?prefix=unsafe"
    with _configured(path, "maxmemory-policy", "allkeys-lru", afterwards="noeviction"):
        done = _up(short_home, "--store", url)

    assert done.returncode == 1
    assert "maxmemory-policy is allkeys-lru, which deletes runs" in done.stderr
    assert "CONFIG SET maxmemory-policy noeviction" in done.stderr
    assert _is_one_message(done.stderr)
    with redis.Redis(unix_socket_path=path) as store:
        assert store.exists("{unsafe:meta}") == 0
        with platform(short_home, "--store", url) as running, running.api() as api:
            assert api.get("/readyz").is_success
            assert store.exists("{unsafe:meta}") == 1


# ---- no memory ----


def test_a_store_without_memory_refuses_new_work_and_ends_what_runs(short_home: Path) -> None:
    with platform(short_home) as running:
        app = running.deploy(APPS / "mistakes")
        run_id = start_run(running, "mistakes", "slow", 20, 0.1)
        waiting = start_run(running, "mistakes", "waiting", "memory")
        wait_for_events(running, run_id, 3)
        store = str(running.home / "run" / "valkey.sock")
        with _configured(store, "maxmemory", "1mb", afterwards="0"):  # it has used more
            _check_new_work_is_refused(running, app)
            os.kill(child(running, "fluvial_gateway"), signal.SIGKILL)  # even the owner may change
            found = wait_for_result(running, run_id)
            _check_new_work_is_refused(running, app)
        with running.api() as api:
            api.post("/v1/hooks/mistakes/memory", json=1).raise_for_status()
        later = start_run(running, "mistakes", "total", 1)

        assert (found["status"], found["result"]) == ("completed", 20)
        assert wait_for_result(running, later)["result"] == 2
        assert wait_for_result(running, waiting)["result"] == 2
        check_each_result_once(read_events(running, run_id))


# ---- no disk ----


@needs_mounts
def test_a_full_disk_refuses_new_work_first_and_what_runs_goes_on_later(short_home: Path) -> None:
    with platform_on_small_disk(short_home, "store", 80) as (running, disk):
        app = running.deploy(APPS / "mistakes")
        short = start_run(running, "mistakes", "slow", 10, 0.1)
        long = start_run(running, "mistakes", "slow", 60, 0.1)
        wait_for_events(running, short, 3)
        filler = fill(disk, leave_mib=30)
        _check_new_work_is_refused(running, app)
        assert wait_for_result(running, short)["result"] == 10

        filler.unlink()
        filler = fill(disk)
        log = running.home / "up.log"
        wait_until(lambda: "is full; the store is started again" in log.read_text(), 30, "stopped")
        _check_new_work_is_refused(running, app)
        filler.unlink()
        with running.api() as api:
            wait_until(lambda: api.get("/readyz").is_success, 30, "the store is back")

        assert wait_for_result(running, long)["result"] == 60
        check_each_result_once(read_events(running, long))
        later = start_run(running, "mistakes", "total", 1)
        assert wait_for_result(running, later)["result"] == 2


@needs_mounts
@pytest.mark.parametrize("folder", ["blobs", "bundles"])
def test_a_deploy_without_disk_leaves_nothing(
    short_home: Path, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "data.bin").write_bytes(os.urandom(2**20))
    with platform_on_small_disk(short_home, folder, 1) as (running, _):
        mistakes = running.deploy(APPS / "mistakes")
        with unharmed(running, mistakes):
            done = running.command("deploy", str(tmp_path), "--name", "large")

    assert (done.returncode, done.stdout) == (1, "")
    assert "error: The disk is full: no space is left" in done.stderr
    assert _is_one_message(done.stderr.partition("error: ")[2])


def _up(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run an `up` that is expected to end by itself."""
    addresses = {"--http": "127.0.0.1:0", "--control": "127.0.0.1:0"}
    addresses |= dict(zip(options[::2], options[1::2], strict=True))
    return subprocess.run(
        [sys.executable, "-m", "fluvial_deploy", "up", *(x for p in addresses.items() for x in p)],
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=UP_SECONDS,
        check=False,
    )


def _is_one_message(text: str) -> bool:
    return text.count("\n") == 1 and "Traceback" not in text


@contextmanager
def _configured(path: str, name: str, value: str, *, afterwards: str) -> Generator[None]:
    """Let a store have another setting for a while."""
    with redis.Redis(unix_socket_path=path) as store:
        store.execute_command("CONFIG", "SET", name, value)  # pyright: ignore[reportUnknownMemberType]  # redis-py leaves it untyped
        try:
            yield
        finally:
            store.execute_command("CONFIG", "SET", name, afterwards)  # pyright: ignore[reportUnknownMemberType]  # as above


def _check_new_work_is_refused(running: Platform, app: App) -> None:
    with running.api() as api, app.client() as client:
        started = api.post(START, json=[1])
        assert (started.status_code, started.json()["code"]) == (503, "store_full"), started.text
        assert int(started.headers["retry-after"]) >= 1
        resumed = api.post("/v1/hooks/mistakes/memory", json=1)
        assert resumed.status_code in (503, 404), resumed.text
        assert client.post("/", content=b"12345").text == "5 bytes"
        assert client.post("/start").text.startswith("unavailable the ")
    done = running.command("start", "mistakes", "total", "1")
    assert (done.returncode, done.stdout) == (5, "")
    assert "error: The store is full: " in done.stderr
    assert _is_one_message(done.stderr)
