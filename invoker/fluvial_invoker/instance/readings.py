"""What the kernel says about this process and its loop's thread: cheap enough for ten a second.

Where a file of /proc cannot be read (a sandbox), its reading is zero: it then never counts.
"""

from __future__ import annotations

import os
import resource
import threading
from time import process_time
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_RESIDENT: Final = 1
_SHARED: Final = 2
_QUEUED_NS: Final = 1  # of schedstat: time for which the thread could run and had no core
_MANY_DESCRIPTORS: Final = 0.5  # below, they are counted only now and then
_COUNT_EVERY: Final = 5


class Readings:
    """Reads; made in the loop's thread, used by the watchdog's."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._max_descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._schedule_path = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._descriptor_share = 0.0
        self._descriptor_counts = 0

    def cpu_seconds(self) -> float:
        """Return the CPU time that the process has used."""
        return process_time()

    def queued_seconds(self) -> float:
        """Return for how long the loop's thread has waited for a core: its neighbours' doing."""
        fields = _fields(self._schedule_path)
        return int(fields[_QUEUED_NS]) / 1e9 if len(fields) > _QUEUED_NS else 0.0

    def memory_share(self) -> float:
        """Return how much of its memory limit the process has in use, without mapped files."""
        fields = _fields("/proc/self/statm")
        if len(fields) <= _SHARED:
            return 0.0
        used = (int(fields[_RESIDENT]) - int(fields[_SHARED])) * _PAGE_BYTES
        return used / self._memory_bytes

    def descriptor_share(self) -> float:
        """Return how many of its descriptors are open; looked up more often when many are."""
        self._descriptor_counts += 1
        is_due = self._descriptor_counts % _COUNT_EVERY == 1
        if is_due or self._descriptor_share > _MANY_DESCRIPTORS:
            self._descriptor_share = _open_descriptors() / self._max_descriptors
        return self._descriptor_share


def _fields(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return []
    try:
        return os.read(fd, 256).decode().split()
    finally:
        os.close(fd)


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0
