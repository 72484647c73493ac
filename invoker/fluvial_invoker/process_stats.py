"""What the kernel says about a process: resident memory and CPU time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")
_PARENT: Final = 1
_UTIME: Final = 11  # counted after the name, which may contain anything
_STIME: Final = 12


def rss_bytes(pid: int) -> int:
    """Return the resident memory; 0 when the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory that is no file's; 0 when the process is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * _PAGE_BYTES


def cpu_us(pid: int) -> int:
    """Return user plus system time; 0 when the process is gone."""
    fields = _stat(pid)
    return (int(fields[_UTIME]) + int(fields[_STIME])) * _TICK_US if fields else 0


def parent_pid(pid: int) -> int | None:
    """Return the parent of a process; None when the process is gone."""
    fields = _stat(pid)
    return int(fields[_PARENT]) if fields else None


def only_child(pid: int) -> int:
    """Return the child of a process that has one, the process itself where that is not known."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return pid
    return int(children[0]) if len(children) == 1 else pid


def _stat(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
