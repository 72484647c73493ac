"""Many invocations in few instances: what one of them does to the others."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.installation import App, Platform, platform, wait_until

APPS: Final = Path(__file__).parent / "apps"


@pytest.fixture(scope="module")
def crowded(running: Platform) -> App:
    return running.deploy(APPS / "crowded")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A FIFO that an app waits for, whoever it runs as."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    for folder in (path, *list(path.parents)[:3]):
        folder.chmod(folder.stat().st_mode | 0o005)
    path.chmod(0o666)
    return path


def test_requests_go_elsewhere_while_a_handler_blocks_the_loop(crowded: App, gate: Path) -> None:
    with crowded.client() as client, ThreadPoolExecutor(8) as threads:
        before = client.get("/").json()
        blocking = threads.submit(client.get, "/block", params={"gate": str(gate)}, timeout=60)
        writer = os.open(gate, os.O_WRONLY)  # returns when the handler has opened it: it blocks
        # Some of these are sent into the blocked loop before anybody knows, and are taken back.
        answers = [threads.submit(client.get, "/", timeout=60) for _ in range(8)]
        elsewhere = {answer.result().json() for answer in answers}
        assert not blocking.done()
        os.close(writer)

        assert blocking.result().json() == before
        assert before not in elsewhere


def test_as_many_threads_as_callers_serve_a_wsgi_app(running: Platform) -> None:
    sleepy = running.deploy(APPS / "sleepy")
    with sleepy.client() as client, ThreadPoolExecutor(50) as threads:
        asked = [threads.submit(client.get, "/together", timeout=90) for _ in range(50)]
        answers = [each.result() for each in asked]

    assert [answer.status_code for answer in answers] == [200] * 50
    assert len({answer.text for answer in answers}) == 1


def test_min_instances_are_there_before_a_request_and_after_a_crash(short_home: Path) -> None:
    with platform(short_home) as own:
        kept = own.deploy(APPS / "kept")
        wait_until(lambda: len(_pids(own, kept)) == 1, 30, "an instance is kept")
        [killed] = _pids(own, kept)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: bool(_pids(own, kept) - {killed}), 30, "another one took its place")
        [pid] = _pids(own, kept)
        with kept.client() as client:
            answers = {client.get("/").text for _ in range(3)}
        own.deploy(APPS / "crowded")  # anything that takes longer than the idle time

        assert answers == {str(pid)}
        assert _pids(own, kept) == {pid}


def _pids(running: Platform, app: App) -> set[int]:
    # One that is being started has no process yet.
    return {int(each["pid"]) for each in running.instances(app) if each["state"] == "ready"}
