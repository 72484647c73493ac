"""The KMS command: what wraps root keys before they are written, and unwraps them.

    COMMAND wrap APP KEY_ID      the root key (32 bytes) on stdin, what is to be stored on stdout
    COMMAND unwrap APP KEY_ID    what was stored on stdin, the root key on stdout

It is an argument list, never a shell's text. It must answer within a deadline and a number of bytes
and exit with 0. What it writes to stderr goes to the invoker's log; what it reads and writes
otherwise stands in no log and no error.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final, Literal

from fluvial.encryption import KEY_BYTES
from fluvial.errors import FluvialError
from fluvial_invoker.root_keys import RootKey, wipe

KMS_SECONDS: Final = 10.0  # a round trip to a key service and its retries
MAX_WRAPPED_BYTES: Final = 16 * 1024  # below what a pipe takes at once: writing never waits


class KmsError(FluvialError):
    """The KMS command failed; the message never holds what it was given or has written."""

    code = "kms_failed"
    retryable = True

    def __init__(self, command: str, verb: str, app: str, key_id: str, reason: str) -> None:
        super().__init__(
            f"`{command} {verb} {app} {key_id}` {reason}; what it wrote to stderr stands in the"
            " invoker's log"
        )


class KmsCommand:
    """Runs one command, each time in a process of its own."""

    def __init__(self, arguments: Sequence[str], *, deadline_seconds: float = KMS_SECONDS) -> None:
        self._arguments = tuple(arguments)
        self._deadline_seconds = deadline_seconds

    async def wrap(self, app: str, key_id: str, root: RootKey) -> bytearray:
        """Return what is to be stored in place of a root key.

        Raises:
            KmsError: the command failed, or does not unwrap what it has wrapped.
        """
        wrapped = await self._run("wrap", app, key_id, root.material, MAX_WRAPPED_BYTES)
        if not wrapped:
            raise self._error("wrap", app, key_id, "wrote nothing")
        # Before anything is sealed with it: a key that cannot be unwrapped later is lost.
        again = await self.unwrap(app, key_id, wrapped)
        is_same = again.material == root.material
        again.wipe()
        if not is_same:
            raise self._error("unwrap", app, key_id, "did not return the key that it had wrapped")
        return wrapped

    async def unwrap(self, app: str, key_id: str, wrapped: bytearray) -> RootKey:
        """Return the root key that was wrapped.

        Raises:
            KmsError: the command failed.
        """
        root = RootKey(await self._run("unwrap", app, key_id, wrapped, KEY_BYTES))
        if not root.is_whole:
            root.wipe()
            raise self._error("unwrap", app, key_id, f"did not write {KEY_BYTES} bytes")
        return root

    async def _run(
        self,
        verb: Literal["wrap", "unwrap"],
        app: str,
        key_id: str,
        given: bytearray,
        most_bytes: int,
    ) -> bytearray:
        arguments = (*self._arguments, verb, app, key_id)
        try:
            return await asyncio.to_thread(
                _communicate, arguments, given, most_bytes, self._deadline_seconds
            )
        except _FailedError as error:
            raise self._error(verb, app, key_id, str(error)) from None

    def _error(self, verb: str, app: str, key_id: str, reason: str) -> KmsError:
        return KmsError(self._arguments[0], verb, app, key_id, reason)


class _FailedError(Exception):
    """Why a command did not do it."""


def _communicate(
    arguments: Sequence[str], given: bytearray, most_bytes: int, seconds: float
) -> bytearray:
    deadline = time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise _FailedError(f"could not be started: {error.strerror}") from None
    buffer = bytearray(most_bytes + 1)
    with process:
        try:
            _write(process, given)
            size = _read(process, buffer, deadline)
            status = process.wait(max(0.0, deadline - time.monotonic()))
            if status:
                raise _FailedError(f"ended with {_how(status)}")
            return buffer[:size]
        except (TimeoutError, subprocess.TimeoutExpired):
            raise _FailedError(f"did not end within {seconds:g} s") from None
        finally:
            wipe(buffer)
            if process.poll() is None:  # else its group's number may be another's by now
                os.killpg(process.pid, signal.SIGKILL)


def _write(process: subprocess.Popen[bytes], given: bytearray) -> None:
    if process.stdin is None:
        raise TypeError("started without a pipe")
    with contextlib.suppress(BrokenPipeError):  # it did not read, which may be its right
        os.write(process.stdin.fileno(), given)
    process.stdin.close()


def _read(process: subprocess.Popen[bytes], buffer: bytearray, deadline: float) -> int:
    """Read until the end of the output; return its size."""
    if process.stdout is None:
        raise TypeError("started without a pipe")
    fd, size = process.stdout.fileno(), 0
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise TimeoutError
        count = os.readv(fd, [memoryview(buffer)[size:]])
        if not count:
            return size
        size += count
        if size == len(buffer):
            raise _FailedError(f"wrote more than {len(buffer) - 1} bytes")


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"
