"""Is this process short of something that its code has not given back?

Asked when an invocation has failed for want of it, never on the way of one that has not. A process
that is short of memory or descriptors although the invocation is over will fail its neighbours
next: it is better replaced.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import Final

_SHORT: Final = 0.85  # of a limit; what is left is needed to end in order
_PAGE_BYTES: Final = resource.getpagesize()
_DATA_FIELD: Final = 5  # of /proc/self/statm: private writable pages, which RLIMIT_DATA counts


def is_want(error: BaseException) -> bool:
    """Tell whether an invocation has failed for want of memory, descriptors or threads."""
    if isinstance(error, OSError):
        return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, MemoryError)


def find_shortage() -> str | None:
    """Return what the process is short of now: "descriptors", "memory" or None."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            pages = int(file.read().split()[_DATA_FIELD])
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        return "descriptors"
    if _is_short(descriptors, resource.RLIMIT_NOFILE):
        return "descriptors"
    return "memory" if _is_short(pages * _PAGE_BYTES, resource.RLIMIT_DATA) else None


def _is_short(used: int, kind: int) -> bool:
    limit = resource.getrlimit(kind)[0]
    return limit != resource.RLIM_INFINITY and used > limit * _SHORT
