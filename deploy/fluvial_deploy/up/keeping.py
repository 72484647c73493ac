"""Keepers: one program each, started when it should run and again when it died.

A *resident* program runs always. An *on-demand* program is started when somebody dials its socket,
which the supervisor holds, and may end by itself with status 0. Who dies too often is not started
again: the failure ends the supervisor.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from fluvial.errors import FluvialError
from fluvial_deploy.up.processes import Child, Program, log_tail, status_text

MAX_DEATHS: Final = 5
WITHIN_SECONDS: Final = 60.0
READY_SECONDS: Final = 60.0
_FIRST_DELAY_SECONDS: Final = 0.2
_LONGEST_DELAY_SECONDS: Final = 5.0
_READY: Final = b"READY\n"
_END_SECONDS: Final = 1.0  # between the end of the ready pipe and the end of its process

Tell = Callable[[str], None]


class ProgramFailedError(FluvialError):
    """A program does not start or dies again and again; the message says what it logged last."""

    code = "program_failed"

    def __init__(self, program: Program, reason: str) -> None:
        tail = log_tail(program.log) or "(its log is empty)"
        error = _logged_error(tail)
        if error is None:
            super().__init__(f"{program.name} {reason}; the end of {program.log}:\n{tail}")
        else:
            super().__init__(f"{program.name} {reason}: {error}; log {program.log}")


class Deaths:
    """Counts the deaths of one program within the last minute."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque()

    def add(self) -> float | None:
        """Return how long to wait before the next start, None when there were too many."""
        now = self._clock()
        self._times.append(now)
        while now - self._times[0] > WITHIN_SECONDS:
            self._times.popleft()
        if len(self._times) > MAX_DEATHS:
            return None
        delay = _FIRST_DELAY_SECONDS * 2.0 ** (len(self._times) - 1)
        return min(_LONGEST_DELAY_SECONDS, delay)


class Keeper:
    """Keeps one program."""

    def __init__(
        self, program: Program, tell: Tell, started: Callable[[int], None] = lambda pid: None
    ) -> None:
        self._program = program
        self._tell = tell
        self._started = started  # is told each new process id
        self._deaths = Deaths(asyncio.get_running_loop().time)
        self._child: Child | None = None

    @property
    def program(self) -> Program:
        """What is kept."""
        return self._program

    @property
    def pid(self) -> int | None:
        """The running process, if one runs."""
        return self._child.pid if self._child else None

    async def start_ready(self) -> None:
        """Start a resident program and wait until it says that it is ready.

        Raises:
            ProgramFailedError: it ended, or was not ready in time.
        """
        reader, writer = os.pipe()
        try:
            self._start({"FLUVIAL_READY_FD": str(writer)}, (writer,))
        finally:
            os.close(writer)
        said = await _read_all(reader, len(_READY), READY_SECONDS)
        if said != _READY:
            raise ProgramFailedError(self._program, await self._give_up())

    async def keep_resident(self) -> None:
        """Start the program again whenever it ends; it runs already.

        Raises:
            ProgramFailedError: it died too often.
        """
        while True:
            await self._mourn(await self._wait())
            try:
                await self.start_ready()
            except ProgramFailedError as error:
                self._tell(str(error).partition(";")[0])

    async def keep_on_demand(self, listener: socket.socket) -> None:
        """Start the program whenever somebody dials `listener` and it does not run.

        Raises:
            ProgramFailedError: it died too often.
        """
        while True:
            await wait_readable(listener.fileno())
            self._start({}, ())
            status = await self._wait()
            if status != 0:
                await self._mourn(status)

    async def stop(self, force: asyncio.Event) -> None:
        """End the program, if it runs; nobody may be keeping it any more."""
        if self._child is not None:
            await self._child.stop(self._program.grace_seconds, force)

    def _start(self, extra: Mapping[str, str], extra_fds: tuple[int, ...]) -> None:
        self._child = Child.start(self._program, extra=extra, extra_fds=extra_fds)
        self._started(self._child.pid)

    async def _wait(self) -> int:
        if self._child is None:
            raise ProgramFailedError(self._program, "was not started")
        status = await self._child.wait()
        self._child = None
        return status

    async def _mourn(self, status: int) -> None:
        delay = self._deaths.add()
        what = f"ended ({status_text(status)})"
        if delay is None:
            raise ProgramFailedError(
                self._program, f"{what} {MAX_DEATHS + 1} times within {WITHIN_SECONDS:g} seconds"
            )
        self._tell(f"{self._program.name} {what}: starting it again; log {self._program.log}")
        await asyncio.sleep(delay)

    async def _give_up(self) -> str:
        """End a program that is not ready; return why it is not."""
        if self._child is None:
            return "was not started"
        try:
            async with asyncio.timeout(_END_SECONDS):
                return f"ended ({status_text(await self._child.wait())}) before it was ready"
        except TimeoutError:
            await self._child.stop(self._program.grace_seconds, asyncio.Event())
            return f"was not ready within {READY_SECONDS:g} seconds"


def _logged_error(tail: str) -> str | None:
    """Return the error in the last line of a log of JSON objects."""
    try:
        entry: Any = json.loads(tail.rpartition("\n")[2])
    except ValueError:
        return None
    error = cast("dict[str, Any]", entry).get("error") if isinstance(entry, dict) else None
    return error if isinstance(error, str) else None


async def wait_readable(descriptor: int) -> None:
    """Wait until `descriptor` is readable; for a pidfd: until the process has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        loop.remove_reader(descriptor)  # it would be called again until the task below runs
        ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def _read_all(descriptor: int, size: int, timeout_seconds: float) -> bytes:
    """Return up to `size` bytes, less at the end of file or of the time; closes `descriptor`."""
    said = b""
    try:
        async with asyncio.timeout(timeout_seconds):
            while len(said) < size:
                await wait_readable(descriptor)
                data = os.read(descriptor, size - len(said))
                if not data:
                    break
                said += data
    except TimeoutError:
        pass
    finally:
        os.close(descriptor)
    return said
