"""The processes of a platform, as the process table shows them."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.installation import Platform


def descendants(root: int) -> list[int]:
    """Return all processes below `root`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
    found: list[int] = []
    todo = [root]
    while todo:
        pid = todo.pop()
        children = [child for child, parent in parents.items() if parent == pid]
        found += children
        todo += children
    return found


def command_of(pid: int) -> list[str]:
    """Return a process's command line; empty if it is gone."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [part.decode(errors="replace") for part in data.split(b"\0") if part]


def child(running: Platform, name: str) -> int:
    """Return the direct child of `fluvial up` whose program has `name` in its first arguments."""
    parent = running.process.pid
    for pid in descendants(parent):
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if int(status[1]) == parent and any(name in part for part in command_of(pid)[:3]):
            return pid
    raise AssertionError(f"{parent} has no child {name}")


def is_alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process's living threads, exactly; 0 if it is gone."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(task.read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended just now
    return total_ns / 1e9
