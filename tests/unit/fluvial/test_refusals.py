"""What workflow code must not do raises, names the user's line and the remedy, and is not done."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gzip
import importlib
import importlib.resources
import io
import linecache
import logging
import logging.handlers
import multiprocessing
import os
import pdb
import queue
import select
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import anyio
import httpx
import pytest
from pydantic import BaseModel

from fluvial import guards
from fluvial.errors import WorkflowSandboxError
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

guards.install()
HERE = Path(__file__)
POOL = concurrent.futures.ThreadPoolExecutor(1)
ORDER = f"{HERE.parent}/no-such-file"


def nothing() -> None:
    return None


async def nothing_async() -> None:
    return None


def wait_for_a_queue() -> None:
    queue.Queue[int]().get()


def run_a_loop() -> None:
    asyncio.run(nothing_async())


def run_in_another_loop() -> None:
    asyncio.run_coroutine_threadsafe(nothing_async(), LOOP)


def join_a_thread() -> None:
    threading.current_thread().join()


LOOP = asyncio.new_event_loop()
LOOP.close()

REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("time.sleep", lambda: time.sleep(0)),
    ("a thread", lambda: threading.Thread(target=nothing).start()),
    ("a thread", lambda: POOL.submit(nothing)),
    ("a wait for a thread", join_a_thread),
    ("a wait for another thread", lambda: threading.Event().wait()),
    ("a wait for another thread", wait_for_a_queue),
    ("a wait for another thread", lambda: threading.Semaphore(0).acquire()),
    ("a wait for another thread", lambda: concurrent.futures.Future[int]().result()),
    ("a subprocess", lambda: subprocess.run(["true"], check=True)),
    ("a subprocess", lambda: getattr(os, "system")("true")),  # noqa: B009 - its stub deprecates it
    ("a subprocess", lambda: os.posix_spawn("/bin/true", ["true"], {})),
    ("a subprocess", os.fork),
    ("a subprocess", lambda: multiprocessing.get_context("fork").Process(target=nothing).start()),
    ("a signal to a process", lambda: os.kill(os.getpid(), 0)),
    ("signal.signal", lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN)),
    ("signal.raise_signal", lambda: signal.raise_signal(signal.SIGUSR1)),
    ("signal.alarm", lambda: signal.alarm(0)),
    ("a socket", socket.socket),
    ("the network", lambda: socket.create_connection(("127.0.0.1", 9))),
    ("the network", lambda: socket.getaddrinfo("localhost", 80)),
    ("the network", lambda: socket.gethostbyname("localhost")),
    ("the host's name", socket.gethostname),
    ("select", lambda: select.select([], [], [], 0)),
    ("input()", lambda: input("?")),
    ("asyncio.run", run_a_loop),
    ("another event loop", asyncio.new_event_loop),
    ("another event loop", run_in_another_loop),
    ("a file opened for writing", lambda: Path(ORDER).write_text("x")),
    ("a file opened for writing", lambda: os.open(ORDER, os.O_CREAT | os.O_WRONLY)),
    ("a file opened for writing", tempfile.TemporaryFile),
    ("a file opened for writing", lambda: gzip.open(ORDER, "wb")),
    ("a change of a folder", lambda: os.mkdir(ORDER)),
    ("a change of a folder", lambda: Path(ORDER).unlink(missing_ok=True)),
    ("a change of a folder", lambda: os.rename(ORDER, ORDER + "2")),
    ("a change of a file", lambda: os.chmod(HERE, 0o644)),
    ("a change of the environment", lambda: os.environ.update(FLUVIAL_TEST="1")),
    ("a change of the working directory", lambda: os.chdir("/")),
    ("a database", lambda: sqlite3.connect(ORDER)),
    ("a file", lambda: open(HERE)),
    ("a file", lambda: io.open(HERE)),  # noqa: UP020 - refused
    ("a file", HERE.read_text),
    ("a file", HERE.read_bytes),
    ("a file", lambda: os.open(HERE, os.O_RDONLY)),
    ("a file", lambda: shutil.copy(HERE, ORDER)),
    ("a file", lambda: zipfile.ZipFile(HERE)),
    ("a file", lambda: importlib.resources.files("fluvial").joinpath("py.typed").read_text()),
    ("the file system", lambda: os.listdir("/")),
    ("the file system", lambda: list(HERE.parent.iterdir())),
    ("the file system", lambda: list(HERE.parent.glob("*.py"))),
    ("the file system", lambda: list(os.walk("/"))),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_threads_left() -> Any:
    yield
    POOL.shutdown()


@pytest.mark.parametrize(("what", "attempt"), REFUSED, ids=range(len(REFUSED)))
def test_what_workflow_code_must_not_do(play: Play, what: str, attempt: Callable[[], Any]) -> None:
    @workflow
    async def main() -> None:
        attempt()

    outcome = play(main)

    assert isinstance(outcome.error, WorkflowSandboxError), outcome.error
    text = str(outcome.error)
    assert text.startswith(f"{__file__}:")
    assert f"cannot use {what}; " in text
    assert not Path(ORDER).exists()
    assert outcome.types == ["RUN_STARTED", "RUN_FAILED"]


@pytest.mark.parametrize(("what", "attempt"), REFUSED[:3], ids=range(3))
def test_a_refusal_says_what_to_do_instead(
    play: Play, what: str, attempt: Callable[[], Any]
) -> None:
    @workflow
    async def main() -> None:
        attempt()

    advice = "await asyncio.sleep or fluvial.sleep" if what == "time.sleep" else "into a step"

    assert str(play(main).error).endswith(advice)


def test_threads_of_asyncio_are_refused(play: Play) -> None:
    @workflow
    async def main() -> None:
        await asyncio.to_thread(nothing)

    error = play(main).error

    assert isinstance(error, WorkflowSandboxError)
    assert str(error).startswith(f"{__file__}:")


def test_a_library_that_does_it_for_the_user_leads_to_the_users_line(play: Play) -> None:
    @workflow
    async def main() -> None:
        httpx.get("http://127.0.0.1:9/")

    error = play(main).error

    assert isinstance(error, WorkflowSandboxError)
    assert str(error).startswith(f"{__file__}:")
    assert "cannot use the network" in str(error)


def test_a_library_with_tasks_of_its_own_is_refused(play: Play) -> None:
    @workflow
    async def main() -> str:
        try:
            async with httpx.AsyncClient() as client:
                await client.get("http://127.0.0.1:9/")
        except ExceptionGroup as group:
            return repr(group.exceptions[0])
        return "got through"

    assert play(main).result.startswith("WorkflowSandboxError(")


def test_steps_may_do_all_of_it(play: Play, tmp_path: Path) -> None:
    @step
    def work() -> str:
        time.sleep(0)
        thread = threading.Thread(target=nothing)
        thread.start()
        thread.join()
        assert concurrent.futures.Future[int]().cancel()
        socket.socket().close()
        subprocess.run(["true"], check=True)
        (tmp_path / "file").write_text("done")
        return (tmp_path / "file").read_text()

    @workflow
    async def main() -> str:
        return await work()

    assert play(main).result == "done"


# What goes through


def test_late_imports_work(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module's body may do anything: it runs once per process, and not for the run."""
    (tmp_path / "imported_late.py").write_text(
        "import threading, pathlib, subprocess\n"
        "thread = threading.Thread(target=int)\nthread.start()\nthread.join()\n"
        "subprocess.run(['true'], check=True)\n"
        "answer = len(pathlib.Path(__file__).read_text()) > 0\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    @workflow
    async def main() -> bool:
        answer: bool = importlib.import_module("imported_late").answer
        return answer

    forget = lambda: sys.modules.pop("imported_late", None)  # noqa: E731

    assert play(main, before=forget).result is True
    assert list(tmp_path.glob("__pycache__/imported_late.*.pyc"))


def test_time_zones_are_read(play: Play) -> None:
    @workflow
    async def main() -> str:
        return str(ZoneInfo.no_cache("Europe/Berlin"))

    assert play(main).result == "Europe/Berlin"


def test_tracebacks_show_source_lines(play: Play) -> None:
    @workflow
    async def main() -> str:
        linecache.clearcache()
        try:
            raise ValueError("here")
        except ValueError:
            return traceback.format_exc()

    assert 'raise ValueError("here")' in play(main).result


class Order(BaseModel):
    number: int
    tags: set[str] = set()


def test_pydantic_works(play: Play) -> None:
    @workflow
    async def main() -> dict[str, Any]:
        class Late(BaseModel):
            order: Order

        late = Late.model_validate_json('{"order": {"number": 5, "tags": ["a"]}}')
        return late.model_dump(mode="json") | {"schema": len(Late.model_json_schema())}

    assert play(main).result["order"] == {"number": 5, "tags": ["a"]}


def test_building_a_client_is_harmless(play: Play) -> None:
    @workflow
    async def main() -> str:
        async with httpx.AsyncClient(base_url="http://127.0.0.1:9") as client:
            return str(client.build_request("GET", "/x").url)

    assert play(main).result == "http://127.0.0.1:9/x"


def test_anyio_is_asyncio(play: Play) -> None:
    @step
    async def double(number: int) -> int:
        return 2 * number

    @workflow
    async def main() -> list[int]:
        found: list[int] = []

        async def work(number: int) -> None:
            found.append(await double(number))

        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(work, number)
        with anyio.move_on_after(5):
            await anyio.sleep(60)
        return found

    assert play(main).result == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("kind", ["stream", "file", "rotating", "queue", "memory"])
def test_logging_works(
    play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    target = tmp_path / "log"
    handlers: dict[str, Callable[[], logging.Handler]] = {
        "stream": lambda: logging.StreamHandler(io.StringIO()),
        "file": lambda: logging.FileHandler(target, delay=True),
        "rotating": lambda: logging.handlers.RotatingFileHandler(
            target, maxBytes=10, backupCount=2, delay=True
        ),
        "queue": lambda: logging.handlers.QueueHandler(queue.Queue()),
        "memory": lambda: logging.handlers.MemoryHandler(1, target=logging.NullHandler()),
    }
    handler = handlers[kind]()
    errors: list[object] = []

    def note_error(record: logging.LogRecord) -> None:
        errors.append(sys.exc_info()[1])

    monkeypatch.setattr(handler, "handleError", note_error)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y"))
    log = logging.getLogger(f"user.{kind}")
    log.addHandler(handler)
    log.propagate = False

    @workflow
    async def main() -> str:
        for number in range(4):
            log.warning("line %d", number)
        return "done"

    try:
        assert play(main).result == "done"
    finally:
        log.removeHandler(handler)
        handler.close()

    assert errors == []
    assert target.exists() == (kind in {"file", "rotating"})


def test_a_database_in_memory_is_harmless(play: Play) -> None:
    @workflow
    async def main() -> int:
        connection = sqlite3.connect(":memory:")
        answer: int = connection.execute("select 6 * 7").fetchone()[0]
        connection.close()
        return answer

    assert play(main).result == 42


def test_a_finaliser_may_clean_up(play: Play, tmp_path: Path) -> None:
    """The garbage of others is collected whenever, also while a workflow runs."""

    class Owner:
        pass

    folders: list[Path] = []

    @workflow
    async def main() -> None:
        for _ in range(1):
            owners.clear()

    owners: list[Owner] = []

    def before() -> None:
        folder = tmp_path / str(len(folders))
        folder.mkdir()
        folders.append(folder)
        owner = Owner()
        weakref.finalize(owner, shutil.rmtree, folder)
        owners.append(owner)

    play(main, before=before)

    assert len(folders) == len(play.modes)
    assert not any(folder.exists() for folder in folders)


def test_a_debugger_may_do_anything(play: Play) -> None:
    commands, out = "p len(__import__('os').listdir('/')) > 0\ncontinue\n", io.StringIO()

    @workflow
    async def main() -> str:
        pdb.Pdb(stdin=io.StringIO(commands), stdout=out).set_trace()
        return "went on"

    assert play(main).result == "went on"
    assert "True" in out.getvalue()


def test_locks_that_are_free_are_taken(play: Play) -> None:
    lock, condition, semaphore = threading.Lock(), threading.Condition(), threading.Semaphore()

    @workflow
    async def main() -> str:
        with lock, condition, semaphore:
            condition.notify_all()
        return "done"

    assert play(main).result == "done"


def test_an_environment_is_read(play: Play) -> None:
    @workflow
    async def main() -> bool:
        return "PATH" in os.environ and os.getcwd() == str(Path.cwd()) and HERE.exists()

    assert play(main).result is True


# Discarded coroutines


def test_a_discarded_workflow_is_refused_too(play: Play) -> None:
    @step
    async def one() -> None: ...

    refused: list[str] = []

    @workflow
    async def main() -> None:
        try:
            await one()
        finally:
            try:
                Path(ORDER).write_text("x")
            except WorkflowSandboxError as error:
                refused.append(str(error))

    play(main)

    assert len(refused) >= 3
    assert not Path(ORDER).exists()


# Outside workflows


def test_nothing_is_refused_outside_workflows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    assert path.read_text() == "x"
    assert POOL.submit(lambda: 5).result(timeout=60) == 5
    assert select.select([], [], [], 0) == ([], [], [])
    assert asyncio.run(asyncio.to_thread(lambda: 6)) == 6
    previous = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, previous)
    with sqlite3.connect(path.with_suffix(".db")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    connection.close()


def test_refusing_functions_keep_their_names() -> None:
    assert threading.Thread.start.__qualname__ == "Thread.start"
    assert signal.signal.__name__ == "signal"
    assert asyncio.run.__module__ == "asyncio.runners"
