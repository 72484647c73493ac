"""Looking for bytes in the memory of other processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

_CHUNK_BYTES = 8 * 1024 * 1024


def holds(pid: int, secrets: list[bytes]) -> list[bytes]:
    """Return those of `secrets` that stand anywhere in the writable memory of a process; none of a
    process that is gone."""
    found: set[bytes] = set()
    overlap = max(map(len, secrets)) - 1
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for chunk in _memory(pid, overlap):
            found.update(secret for secret in secrets if secret in chunk)
    return [secret for secret in secrets if secret in found]


def _memory(pid: int, overlap: int) -> Iterator[bytes]:
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            addresses, permissions, *_ = line.split()
            if not permissions.startswith("rw"):
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            for position in range(start, end, _CHUNK_BYTES):
                with contextlib.suppress(OSError):  # a guard page, or unmapped meanwhile
                    memory.seek(position)
                    yield memory.read(min(_CHUNK_BYTES + overlap, end - position))
