"""Many invocations in few instances: what one of them does to the others."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.installation import App, Platform

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
