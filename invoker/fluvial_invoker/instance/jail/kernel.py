"""The system calls of a jail, by number: the C library has no functions for most of them.

Everything is looked up when the module is imported, in the zygote: a fork then loads nothing.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE: Final = platform.machine()
_NEW: Final = {  # numbers that all architectures share
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_OLD: Final = {
    "x86_64": {"pivot_root": 155, "umount2": 166, "seccomp": 317, "unshare": 272, "capset": 126},
    "aarch64": {"pivot_root": 41, "umount2": 39, "seccomp": 277, "unshare": 97, "capset": 91},
}
NUMBERS: Final[dict[str, int]] = _NEW | _OLD.get(MACHINE, {})


def call(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call; return its result.

    Raises:
        OSError: it failed; the message names the call.
    """
    number = NUMBERS.get(name)
    if number is None:
        raise OSError(f"{name}: not known for {MACHINE}")
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = _syscall(ctypes.c_long(number), *words)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def control_process(option: int, value: int | bytes, *more: int) -> None:
    """Call prctl.

    Raises:
        OSError: it failed.
    """
    words = [ctypes.c_ulong(each) for each in (*more, 0, 0, 0)][:3]
    first = ctypes.c_ulong(value) if isinstance(value, int) else value
    if _libc.prctl(option, first, *words) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")
