"""Keepers start programs when they should run, and give up on those that die too often."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

import pytest

from fluvial_deploy.up import keeping
from fluvial_deploy.up.keeping import Deaths, Keeper, ProgramFailedError
from fluvial_deploy.up.listeners import listen_unix
from fluvial_deploy.up.processes import Program

READY = "import os; os.write(int(os.environ['FLUVIAL_READY_FD']), b'READY\\n')\n"
SERVE = """
import os, socket, sys
listener = socket.socket(fileno=int(os.environ["LISTENER"]))
connection, _ = listener.accept()
connection.sendall(b"pid %d" % os.getpid())
connection.close()
"""


def program(folder: Path, source: str, *, listener: socket.socket | None = None) -> Program:
    descriptors = [listener.fileno()] if listener else []
    return Program(
        name="stand-in",
        command=(sys.executable, "-S", "-c", source),
        environment={"LISTENER": str(descriptors[0])} if descriptors else {},
        log=folder / "program.log",
        pass_fds=descriptors,
        grace_seconds=5.0,
    )


def dial(path: Path) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(path))
        return connection.recv(100)


def test_deaths_wait_longer_each_time_and_are_forgiven_after_a_minute() -> None:
    now = [0.0]
    deaths = Deaths(lambda: now[0])

    assert [deaths.add() for _ in range(6)] == [0.2, 0.4, 0.8, 1.6, 3.2, None]
    now[0] = 61.0
    assert deaths.add() == 0.2


def test_a_program_that_ends_before_it_is_ready_is_told_with_its_log(tmp_path: Path) -> None:
    async def main() -> None:
        keeper = Keeper(program(tmp_path, "print('the reason'); raise SystemExit(3)"), print)
        with pytest.raises(ProgramFailedError, match=r"(?s)status 3.*before it was.*the reason"):
            await keeper.start_ready()

    asyncio.run(main())


def test_a_program_that_is_never_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "READY_SECONDS", 0.2)
    monkeypatch.setattr(keeping, "_END_SECONDS", 0.1)

    async def main() -> None:
        pids: list[int] = []
        source = "import signal; signal.pause()"
        keeper = Keeper(program(tmp_path, source), print, pids.append)
        with pytest.raises(ProgramFailedError, match=r"was not ready within 0\.2 s"):
            await keeper.start_ready()
        with pytest.raises(ProcessLookupError):
            os.kill(pids[0], 0)

    asyncio.run(main())


def test_a_resident_program_that_dies_is_started_again_and_told(tmp_path: Path) -> None:
    async def main() -> None:
        said: list[str] = []
        again = asyncio.Event()
        pids: list[int] = []

        def started(pid: int) -> None:
            pids.append(pid)
            if len(pids) == 2:
                again.set()

        source = READY + "import signal; signal.pause()"
        keeper = Keeper(program(tmp_path, source), said.append, started)
        await keeper.start_ready()
        keeping_it = asyncio.create_task(keeper.keep_resident())
        os.kill(pids[0], 9)
        async with asyncio.timeout(20):
            await again.wait()
        keeping_it.cancel()
        await asyncio.gather(keeping_it, return_exceptions=True)
        await keeper.stop(asyncio.Event())

        assert len(said) == 1
        assert "stand-in ended (signal 9): starting it again" in said[0]

    asyncio.run(main())


def test_a_crash_loop_ends_with_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_LONGEST_DELAY_SECONDS", 0.01)

    async def main() -> None:
        pids: list[int] = []
        source = READY + "print('boom', flush=True); raise SystemExit(1)"
        keeper = Keeper(program(tmp_path, source), lambda text: None, pids.append)
        await keeper.start_ready()
        async with asyncio.timeout(30):
            with pytest.raises(ProgramFailedError, match=r"(?s)6 times within 60 seconds.*boom"):
                await keeper.keep_resident()

        assert len(pids) == 6

    asyncio.run(main())


def test_a_program_that_cannot_start_is_told_with_the_error_it_logged(tmp_path: Path) -> None:
    async def main() -> None:
        source = (
            """print('{"message": "no", "error": "the store is unsafe"}'); raise SystemExit(1)"""
        )
        keeper = Keeper(program(tmp_path, source), lambda text: None)
        with pytest.raises(ProgramFailedError) as raised:
            await keeper.start_ready()

        assert str(raised.value) == (
            "stand-in ended (status 1) before it was ready: the store is unsafe; "
            f"log {tmp_path / 'program.log'}"
        )

    asyncio.run(main())


def test_an_on_demand_program_runs_only_while_somebody_asks(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"
        pids: list[int] = []
        with listen_unix(path) as listener:
            keeper = Keeper(program(tmp_path, SERVE, listener=listener), print, pids.append)
            keeping_it = asyncio.create_task(keeper.keep_on_demand(listener))
            answers = [await asyncio.to_thread(dial, path) for _ in range(3)]
            keeping_it.cancel()
            await asyncio.gather(keeping_it, return_exceptions=True)
            await keeper.stop(asyncio.Event())

        assert answers == [b"pid %d" % pid for pid in pids]
        assert len(set(pids)) == 3  # each ended by itself with status 0: no death, no delay

    asyncio.run(main())


def test_stopping_waits_as_long_as_the_program_needs(tmp_path: Path) -> None:
    source = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('drained', flush=True), sys.exit(0)))\n"
        + READY
        + "signal.pause()"
    )

    async def main() -> None:
        keeper = Keeper(program(tmp_path, source), print)
        await keeper.start_ready()
        await keeper.stop(asyncio.Event())

    asyncio.run(main())
    assert (tmp_path / "program.log").read_text() == "drained\n"


def test_a_forced_stop_kills_who_does_not_listen(tmp_path: Path) -> None:
    source = (
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        + READY
        + "while True: signal.pause()"
    )

    async def main() -> None:
        keeper = Keeper(program(tmp_path, source), print)
        await keeper.start_ready()
        force = asyncio.Event()
        force.set()
        async with asyncio.timeout(3):  # less than the grace
            await keeper.stop(force)

    asyncio.run(main())
