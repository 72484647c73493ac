"""Namespaces of its own: users, mounts, processes, IPC, host name, and the network if wanted."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

from fluvial_invoker.instance.jail.kernel import call, control_process

_NEW_MOUNTS: Final = 0x00020000
_NEW_CGROUP: Final = 0x02000000
_NEW_UTS: Final = 0x04000000
_NEW_IPC: Final = 0x08000000
_NEW_USERS: Final = 0x10000000
_NEW_PROCESSES: Final = 0x20000000
_NEW_NETWORK: Final = 0x40000000
_ALL: Final = _NEW_USERS | _NEW_MOUNTS | _NEW_PROCESSES | _NEW_IPC | _NEW_UTS | _NEW_CGROUP

_SET_DUMPABLE: Final = 4
_DROP_BOUND: Final = 24
_LAST_CAPABILITY: Final = 63
_CAPABILITY_VERSION: Final = 0x20080522


def separate(*, has_network: bool) -> None:
    """Move into new namespaces; processes started from now on are in the one of processes.

    The user ids stay what they are, and are the only ones that exist inside.

    Raises:
        OSError: the kernel, or a policy of the machine, refuses.
    """
    uid, gid = os.geteuid(), os.getegid()
    # A process that has changed its user does not own its own files in /proc, until it says this.
    control_process(_SET_DUMPABLE, 1)
    call("unshare", _ALL | (0 if has_network else _NEW_NETWORK))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")


def drop_capabilities() -> None:
    """Give up what a new user namespace has given."""
    for capability in range(_LAST_CAPABILITY):
        try:
            control_process(_DROP_BOUND, capability)
        except OSError:
            break  # the kernel knows no more of them
    header = ctypes.create_string_buffer(_CAPABILITY_VERSION.to_bytes(4, "little") + bytes(4), 8)
    call("capset", header, ctypes.create_string_buffer(24))
