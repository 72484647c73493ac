"""What a new process does to itself before any user code runs (isolation tier `process`).

Own session and process group (so that everything it starts can be killed with it), death with its
parent, no new privileges, resource limits, nothing open but its own three descriptors, an
environment from an allow-list, memory closed to processes of other users.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import resource
import signal
import sys
from collections.abc import Collection, Mapping
from typing import Any, Final

from fluvial.manifest import DeploymentSpec

LISTENER_FD: Final = 3
CONTROL_FD: Final = 4
LOG_FD: Final = 5  # beside 1 and 2, which user code may redirect
_FIRST_FOREIGN_FD: Final = 6
_BOTH_ENDS: Final = [os.O_RDONLY, os.O_WRONLY]
_MAX_FILES: Final = 1024
_THREAD_STACK_BYTES: Final = 8 * 1024 * 1024  # glibc's default: counted by RLIMIT_DATA at once
_OWN_THREADS: Final = 64
_MAX_TASKS: Final = 4096  # threads and processes of all instances of an app together

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38

# What an instance may see of the environment that the platform itself was started with.
INHERITED_VARIABLES: Final = (
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "PATH",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TMPDIR",
    "TZ",
)

# Looked up once, in the zygote: a fork then needs no dynamic loading.
_libc: Final = ctypes.CDLL(None, use_errno=True)


def inherited_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the part of the platform's environment that its restricted processes get."""
    return {name: environment[name] for name in INHERITED_VARIABLES if name in environment}


def die_with_parent(parent_pid: int) -> None:
    """Be killed when the thread that started this process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        # The parent died before the line above: no signal will come.
        os._exit(0)


def reserve_places() -> None:
    """Keep what a zygote opens for ever off the places of its children's descriptors."""
    null = os.open(os.devnull, os.O_RDONLY)
    while null < _FIRST_FOREIGN_FD:
        null = os.dup(null)
    os.close(null)


def adopt_descendants() -> None:
    """Become the parent of every descendant whose own parent ends, whatever its session."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def take_descriptors(
    listener_fd: int, log_fd: int, control_fd: int, *, keep: Collection[int] = ()
) -> None:
    """Move the three descriptors to their places and close everything else but `keep`.

    And but for pipes of which this process has both ends: see `own_pipes`.
    """
    kept_fds = own_pipes().union(keep)
    # First out of the way: they may lie at each other's places.
    listener, log, control = (_lift(fd) for fd in (listener_fd, log_fd, control_fd))
    null = _lift(os.open(os.devnull, os.O_RDONLY))
    places = ((null, 0), (log, 1), (log, 2), (listener, LISTENER_FD), (control, CONTROL_FD))
    for source, place in (*places, (log, LOG_FD)):
        os.dup2(source, place, inheritable=place < LISTENER_FD)
    first = _FIRST_FOREIGN_FD
    for kept in sorted(kept_fds):
        os.closerange(first, kept)
        first = kept + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def own_pipes() -> frozenset[int]:
    """Return the descriptors of pipes of which this process has both ends.

    libuv has one, remembers its numbers, and makes it anew whenever the process forks. Where others
    stand at its numbers, the next fork would close those, and starting a process would abort.
    """
    ends: dict[str, list[int]] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            ends.setdefault(os.readlink(f"/proc/self/fd/{name}"), []).append(int(name))
    pipes = [fds for target, fds in ends.items() if target.startswith("pipe:")]
    return frozenset(fd for fds in pipes if sorted(map(_access, fds)) == _BOTH_ENDS for fd in fds)


def _access(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE


def _lift(fd: int) -> int:
    """Return a copy of `fd` above the places; closing the rest closes the original too."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FOREIGN_FD)


def become(uid: int | None) -> None:
    """Become another user, for good, if the start has not done it; does nothing for None.

    The kernel forgets what `die_with_parent` has asked for: ask again afterwards.
    """
    if uid is None:
        return
    if os.getuid() != uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    # The kernel counts a user's threads: only where the user is the app alone does it make sense.
    limit_tasks(_MAX_TASKS)


def limit_tasks(most: int) -> None:
    """Limit the threads and processes of this user, in this namespace of users; root's are not."""
    _limit(resource.RLIMIT_NPROC, most)


def confine(spec: DeploymentSpec) -> None:
    """Give up what user code must not have. Irreversible."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    adopt_descendants()  # then they are its zygote's once it has ended
    settings = spec.instance
    stacks = (settings.max_concurrency + _OWN_THREADS) * _THREAD_STACK_BYTES
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _MAX_FILES)
    _limit(resource.RLIMIT_DATA, settings.memory_bytes + stacks)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def reseed() -> None:
    """Give this process random numbers of its own; a fork inherits its parent's state."""
    random.seed()
    numpy_random: Any = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
