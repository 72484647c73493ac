"""How much memory the machine (or the container) has and has left, and a call when it is scarce."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Final

_LOW: Final = 0.1  # of all memory: with less available, snapshots are given up
_PRESSURE_FILE: Final = "/proc/pressure/memory"
# Some task waited for memory for 100 ms within 2 s. Unprivileged processes may only ask for
# windows that are a multiple of 2 s (Documentation/accounting/psi.rst).
_TRIGGER: Final = b"some 100000 2000000\0"
_CGROUP: Final = Path("/sys/fs/cgroup")

_log = logging.getLogger(__name__)


def total_bytes() -> int:
    """Return the memory that may be used at most."""
    return min(_meminfo("MemTotal"), _cgroup_bytes("memory.max"))


def available_bytes() -> int:
    """Return what can still be used without swapping."""
    left = _cgroup_bytes("memory.max") - _cgroup_bytes("memory.current", unknown=0)
    return max(0, min(_meminfo("MemAvailable"), left))


def is_low() -> bool:
    """Say whether memory is so scarce that what is not needed should go."""
    return available_bytes() < _LOW * total_bytes()


class PressureWatch:
    """Calls when tasks of the machine wait for memory, where the kernel tells it (PSI)."""

    def __init__(self, on_pressure: Callable[[], None]) -> None:
        self._on_pressure = on_pressure
        self._fd: int | None = None
        self._poll = select.epoll()
        with contextlib.suppress(OSError):  # no such file, not allowed: then nobody calls
            self._fd = os.open(_PRESSURE_FILE, os.O_RDWR | os.O_NONBLOCK)
            os.write(self._fd, _TRIGGER)
            self._poll.register(self._fd, select.EPOLLPRI)
            asyncio.get_running_loop().add_reader(self._poll.fileno(), self._woken)

    def close(self) -> None:
        """Stop calling."""
        asyncio.get_running_loop().remove_reader(self._poll.fileno())
        self._poll.close()
        if self._fd is not None:
            os.close(self._fd)

    def _woken(self) -> None:
        events = self._poll.poll(0)
        if any(event & select.EPOLLERR for _, event in events):
            asyncio.get_running_loop().remove_reader(self._poll.fileno())
            _log.warning("the kernel tells nothing of memory pressure any more")
        elif events:
            self._on_pressure()


def _meminfo(field: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == field:
            return int(rest.split()[0]) * 1024
    raise LookupError(f"/proc/meminfo has no {field}")


def _cgroup_bytes(file: str, *, unknown: int = 1 << 62) -> int:
    """Return a figure of the container's own limit, which it sees at the root; else `unknown`."""
    try:
        text = (_CGROUP / file).read_text().strip()
    except OSError:
        return unknown
    return int(text) if text.isdigit() else unknown
