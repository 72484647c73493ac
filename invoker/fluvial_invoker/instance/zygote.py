"""The generic zygote of a layer: a warmed-up interpreter that instances are forked from.

It has imported the instance's own code, the platform's packages, and the common frameworks that the
layer has; it has served a request in-process, so that nothing lazy is left; it is frozen
(`gc.freeze`), so that a child's collector does not touch, and thereby copy, inherited objects.

It never sees user code, keys or environments: a child reads those from its control descriptor.
It is single-threaded, or says that it is unfit: a lock held by another thread would stay locked in
a child for ever. It has one socket to the invoker, and watches its children through pidfds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any, Final

import msgpack

from fluvial_invoker.instance.birth import be_born
from fluvial_invoker.instance.confinement import die_with_parent
from fluvial_invoker.instance.durable import install_guards
from fluvial_invoker.instance.warm_up import warm_up
from fluvial_invoker.instance.zygote_messages import MAX_MESSAGE_BYTES, ZygoteMessage

FRAMEWORKS: Final = ("pydantic", "starlette.applications", "fastapi", "flask")
# What handlers commonly import, and what the frameworks import only at their first request.
_STANDARD_MODULES: Final = ("decimal", "email.message", "http.cookies", "json", "ssl", "uuid")
_DESCRIPTORS: Final = 3  # listener, log, control


def main(arguments: list[str]) -> None:
    """Run a zygote: [channel descriptor, pid of the invoker, layer folder or ""]."""
    channel_fd, parent_pid, layer = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with_parent(parent_pid)
    install_guards()  # before a framework takes `time.time` and its like by name
    imported = _preload(layer)
    warm_up()
    gc.collect()
    gc.freeze()
    channel = socket.socket(fileno=channel_fd)
    channel.set_inheritable(False)
    Zygote(channel).serve(imported)


def _preload(layer: str) -> list[str]:
    if layer:
        sys.path.append(layer)
    for name in _STANDARD_MODULES:
        importlib.import_module(name)
    return list(_preload_frameworks(layer)) if layer else []


def _preload_frameworks(layer: str) -> Iterator[str]:
    for name in FRAMEWORKS:
        if PathFinder.find_spec(name.partition(".")[0], [layer]) is None:
            continue
        # A framework that does not import is the deployment's problem, not the zygote's.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
            yield name


class Zygote:
    """Serves fork requests until the invoker closes the channel."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pid = os.getpid()
        self._poll = select.epoll()
        self._poll.register(channel.fileno(), select.EPOLLIN)
        self._children: dict[int, int] = {}  # pidfd → pid

    def serve(self, imported: list[str]) -> None:
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
            be_born(*fds, parent_pid=self._pid)
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
