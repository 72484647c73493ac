"""Landlock: which files, ports and processes are within reach, whatever the paths and modes say."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

from fluvial_invoker.instance.jail.kernel import call

# By which version of the interface a right can be handled.
FILES_SINCE: Final = 1
PORTS_SINCE: Final = 4
SCOPES_SINCE: Final = 6
_ASK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_NET_PORT: Final = 2

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_TRUNCATE: Final = 1 << 14
_RIGHTS_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | 1 << 15
_READ: Final = _EXECUTE | _READ_FILE | _READ_DIR
# All rights of a version: 13 at first, then REFER, TRUNCATE and IOCTL_DEV.
_RIGHTS: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_CONNECT_TCP: Final = 1 << 1
_SCOPE_ABSTRACT_SOCKETS: Final = 1 << 0
_SCOPE_SIGNALS: Final = 1 << 1


def version() -> int:
    """Return the version of the kernel's interface; 0: there is none."""
    try:
        return call("landlock_create_ruleset", None, 0, _ASK_VERSION)
    except OSError:
        return 0


def restrict(
    *, readable: Sequence[str], writable: Sequence[str], ports: Sequence[int] | None
) -> None:
    """Leave this process, and all that it starts, these paths, TCP ports, and their own kind.

    Args:
        readable: files and folders that may be read and executed.
        writable: files and folders in which everything may be done.
        ports: the TCP ports that may be dialled; None: all.

    Raises:
        OSError: the kernel refuses.
    """
    known = version()
    rights = _RIGHTS[max(each for each in _RIGHTS if each <= known)]
    net = _CONNECT_TCP if ports is not None and known >= PORTS_SINCE else 0
    scopes = _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if known >= SCOPES_SINCE else 0
    fields = struct.pack("=QQQ", rights, net, scopes)
    size = 8 if known < PORTS_SINCE else 16 if known < SCOPES_SINCE else 24
    ruleset = call("landlock_create_ruleset", fields, size, 0)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & rights)
        for path in writable:
            _allow(ruleset, path, rights)
        for port in ports or () if net else ():
            call("landlock_add_rule", ruleset, _NET_PORT, struct.pack("=QQ", net, port), 0)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not os.path.isdir(path):
            rights &= _RIGHTS_OF_FILES
        call("landlock_add_rule", ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
