"""Restricted child processes of the invoker: how they are started and how their end is noticed.

Both zygotes and spawned instances are `python -I -S` on `instance/bootstrap.py`, with an
environment from an allow-list and no descriptors but those that are named. The end is noticed by a
pidfd in the event loop: no threads, no polling, no signal handler.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Final

from fluvial_invoker.instance import bootstrap
from fluvial_invoker.instance.confinement import inherited_environment

_BOOTSTRAP: Final = os.path.realpath(bootstrap.__file__)


class Process:
    """A child process; `on_exit` gets its exit code (negative: the signal).

    With `uid` it belongs to that user before its first instruction: what it imports may be a
    stranger's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        fds: Sequence[int],
        on_exit: Callable[[int], None],
        uid: int | None = None,
    ) -> None:
        self._on_exit = on_exit
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", _BOOTSTRAP, *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env=inherited_environment(os.environ),
            start_new_session=True,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def kill(self) -> None:
        """End the process and its group; does nothing once it has ended."""
        if self._popen.returncode is None:
            self._kill_group()

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before the wait: until then the group's number cannot belong to anybody else.
        self._kill_group()
        self._on_exit(self._popen.wait())

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
