"""Guards: workflow code gets repeatable answers or a refusal, other code is left alone."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fluvial import determinism, guards
from fluvial.errors import WorkflowSandboxError
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

guards.install()
START_SECONDS = 1_700_000_000


def nothing() -> None:
    return None


@pytest.mark.parametrize(
    ("name", "attempt"),
    [
        ("time.sleep", lambda: time.sleep(0)),
        ("a thread", lambda: threading.Thread(target=nothing).start()),
        ("a subprocess", lambda: subprocess.run(["true"], check=True)),
        ("a subprocess", lambda: os.posix_spawn("/bin/true", ["true"], {})),
        ("a subprocess", os.fork),
        ("a socket", socket.socket),
        ("the network", lambda: socket.getaddrinfo("localhost", 80)),
        ("a file", lambda: Path("/tmp/fluvial-guard").write_text("x")),
    ],
    ids=range(8),
)
def test_what_workflow_code_must_not_do(play: Play, name: str, attempt: Callable[[], Any]) -> None:
    @workflow
    async def main() -> None:
        attempt()

    outcome = play(main)

    assert isinstance(outcome.error, WorkflowSandboxError)
    assert name in str(outcome.error)
    assert str(outcome.error).startswith(f"{__file__}:")


def test_steps_may_do_all_of_it(play: Play, tmp_path: Path) -> None:
    @step
    def work() -> str:
        time.sleep(0)
        thread = threading.Thread(target=nothing)
        thread.start()
        thread.join()
        socket.socket().close()
        (tmp_path / "file").write_text("done")
        return (tmp_path / "file").read_text()

    @workflow
    async def main() -> str:
        return await work()

    assert play(main).result == "done"


def test_the_clock_and_chance_repeat(play: Play) -> None:
    @step
    async def one() -> None: ...

    @workflow
    async def main() -> list[Any]:
        seen: list[Any] = []
        for _ in range(2):
            seen += [time.time(), time.time_ns(), random.random(), random.randint(1, 10**9)]
            seen += [str(uuid.uuid4()), random.sample(range(1000), 3)]
            seen += [determinism.now(), determinism.random(), str(determinism.uuid4())]
            await one()
        return seen

    outcome = play(main)
    again = play(main)

    assert outcome.result == again.result
    assert outcome.result[0] == START_SECONDS
    assert outcome.result[1] == START_SECONDS * 10**9
    assert outcome.result[6] == datetime.fromtimestamp(START_SECONDS, UTC)
    assert outcome.result[9] == START_SECONDS + 0.001
    assert len({str(value) for value in outcome.result}) == len(outcome.result)


def test_nothing_changes_outside_workflows() -> None:
    assert abs(time.time() - datetime.now(UTC).timestamp()) < 5
    assert abs(time.time_ns() / 1e9 - time.time()) < 5
    assert uuid.uuid4() != uuid.uuid4()
    random.seed(5)
    first = [random.random(), random.choice(range(100))]
    random.seed(5)
    assert [random.random(), random.choice(range(100))] == first
    assert determinism.uuid4().version == 4
    assert 0 <= determinism.random() < 1
    assert abs(determinism.now().timestamp() - time.time()) < 5


def test_installing_twice_changes_nothing() -> None:
    before = time.time
    guards.install()

    assert time.time is before
