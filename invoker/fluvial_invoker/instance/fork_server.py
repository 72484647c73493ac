"""Serves the invoker's fork requests: the part that all zygotes have in common.

It is single-threaded, or says that it is unfit: a lock held by another thread would stay locked in
a child for ever. It has one socket to the invoker, and watches its children through pidfds.

What an instance has started and left behind becomes the zygote's child when the instance ends, and
is killed: each process here is an instance, or an orphan of one that has ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from typing import Any, Final, NoReturn, Protocol

import msgpack

from fluvial_invoker.instance.confinement import adopt_descendants
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
        self._orphans: dict[int, int] = {}  # the same, killed and not reaped yet

    def serve(self, imported: list[str]) -> None:
        """Say what was imported, then fork whenever it is asked for."""
        adopt_descendants()
        self._send(ZygoteMessage.READY, self._pid, imported)
        while True:
            for fd, _ in self._poll.poll():
                if fd in self._orphans:
                    self._bury(fd)
                elif fd != self._channel.fileno():
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
        self._end_orphans()

    def _end_orphans(self) -> None:
        known = {*self._children.values(), *self._orphans.values()}
        for pid in _children_of(self._pid) - known:
            os.kill(pid, signal.SIGKILL)  # not reaped yet, so the number is its own
            pidfd = os.pidfd_open(pid)
            self._orphans[pidfd] = pid
            self._poll.register(pidfd, select.EPOLLIN)

    def _bury(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.close(pidfd)
        os.waitpid(self._orphans.pop(pidfd), 0)
        self._end_orphans()  # its own children are ours now

    def _send(self, kind: ZygoteMessage, *fields: Any) -> None:
        self._channel.send(msgpack.packb((int(kind), *fields)))


def _children_of(pid: int) -> set[int]:
    """Return the children of a process of one thread; none where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return {int(child) for child in file.read().split()}
    except FileNotFoundError:
        return set()
