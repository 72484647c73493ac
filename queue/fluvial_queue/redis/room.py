"""Room on the disk that a server of this machine writes to.

A full disk is met as full memory is: new work is refused first, so that what is under way has room
to end. Valkey alone would notice at the first write that fails, and with `appendfsync always` that
write is its end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from fluvial_queue.contract import StoreFullError

_MIB: Final = 2**20
RESERVED_BYTES: Final = 64 * _MIB  # for what is under way: some 100,000 steps with small results
LEAST_BYTES: Final = 8 * _MIB  # with less, a server would only start to end again


class DiskRoom:
    """The room of one folder's disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def allows_a_server(self) -> bool:
        """Whether a server could write for a while."""
        return self._free_bytes() >= LEAST_BYTES

    def check(self) -> None:
        """Refuse new work where there is no room for it.

        Raises:
            StoreFullError: the message names what is left and the limit.
        """
        free_bytes = self._free_bytes()
        if free_bytes < RESERVED_BYTES:
            raise StoreFullError(
                f"the store's disk has {free_bytes // _MIB} MiB left, and its last "
                f"{RESERVED_BYTES // _MIB} MiB are for what is under way: make room"
            )

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize
