"""Child processes of a build: own process group, own deadline, output line by line."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

LogLine = Callable[[str], Awaitable[None]]

MAX_LINE_BYTES: Final = 4096
MAX_LINES: Final = 5000  # of one child; a build that says more has nothing to say
_UNPRINTABLE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ChildTimeoutError(TimeoutError):
    """A child did not end in time and was killed."""


async def run_child(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: LogLine,
    timeout_seconds: float,
) -> int:
    """Run `command` to its end and return its exit status; its whole group dies with it.

    Raises:
        ChildTimeoutError: it did not end within `timeout_seconds`.
    """
    child = await Child.start(command, environment=environment, directory=directory)
    return await child.finish(log, timeout_seconds=timeout_seconds)


class Child:
    """A child that runs; whoever has it must `finish` or `kill` it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        pass_fds: Sequence[int] = (),
        uid: int | None = None,
        reads: bool = False,
    ) -> Child:
        """Start `command`; `reads`: it waits for what `finish` tells it on its standard input."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if reads else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            start_new_session=True,
            pass_fds=pass_fds,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            limit=MAX_LINE_BYTES,
        )
        return cls(process)

    async def finish(self, log: LogLine, *, timeout_seconds: float, told: bytes = b"") -> int:
        """Wait for its end and return its exit status; its whole group dies with it.

        Raises:
            ChildTimeoutError: it did not end within `timeout_seconds`.
        """
        process = self._process
        try:
            async with asyncio.timeout(timeout_seconds):
                if process.stdin is not None:
                    await _tell(process.stdin, told)
                if process.stdout is not None:
                    await _forward(process.stdout, log)
                return await process.wait()
        except TimeoutError:
            raise ChildTimeoutError(f"did not end within {timeout_seconds:g} seconds") from None
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End it and its whole group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()


def printable(text: str) -> str:
    """Return `text` without terminal control sequences and control characters."""
    return _UNPRINTABLE.sub("", text)


async def _tell(stdin: asyncio.StreamWriter, told: bytes) -> None:
    with suppress(ConnectionError):  # it has ended already; its status says why
        stdin.write(told)
        await stdin.drain()
    stdin.close()


async def _forward(output: asyncio.StreamReader, log: LogLine) -> None:
    lines = 0
    while (line := await _read_line(output)) is not None:
        lines += 1
        if lines <= MAX_LINES:
            await log(printable(line.decode("utf-8", "replace")).rstrip())
        elif lines == MAX_LINES + 1:
            await log("… further output is left out")


async def _read_line(output: asyncio.StreamReader) -> bytes | None:
    """Return the next line, cut where it is longer than the limit; None at the end."""
    try:
        return await output.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial or None
    except asyncio.LimitOverrunError as error:
        return await output.readexactly(max(1, error.consumed))
