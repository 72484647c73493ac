"""One child process of the supervisor: started, watched through its pidfd, ended.

A child gets SIGTERM when the supervisor dies, however that happens. It has a session of its own:
an interrupt from the terminal reaches the supervisor alone, which ends its children in order.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_KILL_SECONDS: Final = 10.0  # even SIGKILL waits for a process inside the kernel
_LARGEST_LOG_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 4000


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a program is started."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    pass_fds: Sequence[int] = ()
    grace_seconds: float = 10.0


class Child:
    """A running program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls, program: Program, *, extra: Mapping[str, str], extra_fds: Sequence[int]
    ) -> Child:
        """Start `program`; call it on the main thread, whose end the child takes for a death."""
        with _open_log(program.log) as log:
            process = subprocess.Popen(
                list(program.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**program.environment, **extra},
                pass_fds=(*program.pass_fds, *extra_fds),
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )
        return cls(process)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def wait(self) -> int:
        """Return the exit status when the program has ended (negative: a signal's number)."""
        return await asyncio.shield(self._ended)

    async def stop(self, grace_seconds: float, force: asyncio.Event) -> None:
        """End the program: ask, wait as long as allowed (until `force`), kill."""
        if not self._ended.done():
            self._process.send_signal(signal.SIGTERM)
            waits = [asyncio.ensure_future(force.wait()), asyncio.ensure_future(self.wait())]
            await asyncio.wait(waits, timeout=grace_seconds, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        if not self._ended.done():
            self._process.kill()
            await asyncio.wait({self._ended}, timeout=_KILL_SECONDS)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._ended.set_result(self._process.wait())


def status_text(status: int) -> str:
    """Return what an exit status means."""
    return f"signal {-status}" if status < 0 else f"status {status}"


def log_tail(log: Path) -> str:
    """Return the last lines of a program's log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > _LARGEST_LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _die_with(parent: int) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
