"""Serves the invoker's fork requests: the part that all zygotes have in common.

It is single-threaded, or says that it is unfit: a lock held by another thread would stay locked in
a child for ever. It has one socket to the invoker, and watches its children through pidfds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Any, Final, NoReturn, Protocol

import msgpack

from fluvial_invoker.instance.zygote_messages import MAX_MESSAGE_BYTES, ZygoteMessage

_DESCRIPTORS: Final = 3  # listener, log, control


class Childhood(Protocol):
    """What a child does first; it never returns."""

    def __call__(
        self, listener_fd: int, log_fd: int, control_fd: int, /, *, parent_pid: int
    ) -> NoReturn: ...


class ForkServer:
    """Serves fork requests until the invoker closes the channel."""

    def __init__(self, channel: socket.socket, be_child: Childhood) -> None:
        self._channel = channel
        self._be_child = be_child
        self._pid = os.getpid()
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._children: dict[int, int] = {}  # pidfd → pid

    def serve(self, imported: list[str]) -> None:
        """Say what was imported, then fork whenever it is asked for."""
        self._send(ZygoteMessage.READY, self._pid, imported)
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._channel.fileno():
                    self._reap(fd)
                elif not self._request():
                    return

    def _request(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._channel, MAX_MESSAGE_BYTES, _DESCRIPTORS)
        if not data:
            return False
        _, number = msgpack.unpackb(data)
        threads = len(os.listdir("/proc/self/task"))
        if threads == 1 and len(fds) == _DESCRIPTORS:
            self._send(ZygoteMessage.FORKED, number, self._fork(fds))
        else:
            self._send(ZygoteMessage.UNFIT, number, f"{threads} threads, {len(fds)} descriptors")
        for fd in fds:
            os.close(fd)
        return True

    def _fork(self, fds: list[int]) -> int:
        pid = os.fork()
        if pid == 0:
            # Let go of the numbers: finalisers must not close what the child opens there later.
            self._channel.detach()
            self._poll.close()
            os.setsid()
            self._be_child(*fds, parent_pid=self._pid)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = pid
        self._poll.register(pidfd, select.EPOLLIN)
        return pid

    def _reap(self, pidfd: int) -> None:
        pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        # What the instance has started goes with it. Before the wait: the group's number is its.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._send(ZygoteMessage.DIED, pid, os.waitstatus_to_exitcode(status))

    def _send(self, kind: ZygoteMessage, *fields: Any) -> None:
        self._channel.send(msgpack.packb((int(kind), *fields)))
