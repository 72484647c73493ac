"""What makes a process unsafe to fork: threads, child processes, and descriptors that its children
would share with each other.

A thread does not exist in a fork, but the locks that it held do. A connection, or a position in a
file, that several processes use as their own is broken by the second one.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import threading
from collections.abc import Collection, Iterator
from typing import Final

from fluvial_invoker.instance.zygote_messages import MAX_WHY_CHARACTERS

_DEVICES: Final = frozenset({"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"})
_KINDS: Final = (
    ("anon_inode:[eventpoll]", "an event loop or a selector"),
    ("anon_inode:inotify", "a watch on files"),
    ("pipe:", "a pipe"),
)


def find_hazards(own_fds: Collection[int]) -> tuple[str | None, frozenset[int]]:
    """Return why this process must not be forked (None: nothing speaks against it), and which
    descriptors, beyond `own_fds`, its children may keep."""
    found = [*_threads(), *_children()]
    kept: set[int] = set()
    for fd in sorted(_open_fds() - set(own_fds)):
        try:
            hazard = _shared(fd)
        except OSError:  # the one that listed the others: it is closed
            continue
        if hazard is None:
            kept.add(fd)
        else:
            found.append(f"descriptor {fd}: {hazard}")
    return ("; ".join(found)[:MAX_WHY_CHARACTERS] or None), frozenset(kept)


def join_threads(seconds: float) -> None:
    """Wait for threads that are about to end, such as those of a pool that was closed."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(seconds)


def _threads() -> Iterator[str]:
    count = len(os.listdir("/proc/self/task"))
    names = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    if names:
        yield f"{count - 1} threads: {', '.join(names)}"
    elif count > 1:
        # Native ones. Libraries that care (OpenBLAS) stop theirs when a fork is made, and start
        # them again when they are used: make one, and see.
        _fork_in_vain()
        left = len(os.listdir("/proc/self/task")) - 1
        if left:
            yield f"{left} threads of native code"


def _fork_in_vain() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _children() -> Iterator[str]:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    yield "a child process"


def _open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def _shared(fd: int) -> str | None:
    """Return what is wrong with sharing a descriptor, or None."""
    target = os.readlink(f"/proc/self/fd/{fd}")
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _socket(fd)
    for prefix, name in _KINDS:
        if target.startswith(prefix):
            return name
    if target in _DEVICES:
        return None
    # Each write goes to the end, whoever else has the file open: log files.
    if stat.S_ISREG(mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return None
    return f"open file {target}"


def _socket(fd: int) -> str:
    with socket.socket(fileno=os.dup(fd)) as sock:
        try:
            return f"a socket, connected to {sock.getpeername()}"
        except OSError:
            return f"a socket of the address {sock.getsockname()!r}"
