"""A root of its own: what an instance needs, read-only, and private /tmp, /dev/shm and /proc."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from fluvial_invoker.instance.jail.kernel import call

PRIVATE: Final = ("/tmp", "/dev/shm")
_STAGE: Final = "/tmp"
_HERE: Final = -100  # AT_FDCWD
_CLONE: Final = 1  # OPEN_TREE_CLONE
_CLOEXEC: Final = 0x80000
_RECURSIVE: Final = 0x8000
_EMPTY_PATH: Final = 0x1000
_FROM_EMPTY_PATH: Final = 0x4
_READ_ONLY: Final = 0x1
_NO_SETUID: Final = 0x2
_NO_DEVICES: Final = 0x4
_NO_EXECUTION: Final = 0x8
_SET_TEXT: Final = 1
_CREATE: Final = 6
_DETACH: Final = 2
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_LINKS: Final = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
# What name resolution, TLS, time zones and the dynamic linker read.
_SETTINGS: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/timezone",
)


def change_root(*, readable: Sequence[str], writable: Sequence[str], private_bytes: int) -> None:
    """Make these folders, and what every program needs of the system, all that exists.

    Args:
        readable: folders that are there read-only, under their own names.
        writable: folders that can be written, too.
        private_bytes: how much /tmp and /dev/shm may hold together.

    Raises:
        OSError: the kernel, or a policy of the machine, refuses.
    """
    shown = [*_outermost((*_existing(_SYSTEM), sys.base_prefix, *readable)), *_existing(_SETTINGS)]
    trees = [(path, _clone(path, _READ_ONLY | _NO_SETUID | _NO_DEVICES)) for path in shown]
    trees += [(path, _clone(path, _NO_SETUID)) for path in DEVICES]
    trees += [(path, _clone(path, _NO_SETUID | _NO_DEVICES)) for path in writable]
    links = {path: os.readlink(path) for path in _SYSTEM if os.path.islink(path)} | _LINKS
    root = _new_filesystem("tmpfs", _NO_SETUID | _NO_DEVICES, size=str(private_bytes), mode="755")
    processes = _new_filesystem("proc", _NO_SETUID | _NO_DEVICES | _NO_EXECUTION)
    _attach(root, _STAGE)
    os.fchdir(root)
    for path in PRIVATE:
        os.makedirs(f".{path}", exist_ok=True)
        os.chmod(f".{path}", 0o1777)
    for path, tree in (*trees, ("/proc", processes)):
        _make_place(path, is_folder=os.path.isdir(f"/proc/self/fd/{tree}"))
        _attach(tree, f".{path}")
        os.close(tree)
    for path, target in links.items():
        os.symlink(target, f".{path}")
    os.close(root)
    call("pivot_root", b".", b".")
    call("umount2", b".", _DETACH)
    os.chdir("/")


def _existing(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if os.path.exists(path) and (path not in _SYSTEM or not os.path.islink(path)):
            yield path


def _outermost(paths: Sequence[str]) -> list[str]:
    """Return the paths that are not below another one."""
    chosen: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths if path}, key=len):
        if not any(path == each or path.startswith(f"{each}/") for each in chosen):
            chosen.append(path)
    return chosen


def _make_place(path: str, *, is_folder: bool) -> None:
    if is_folder:
        os.makedirs(f".{path}", exist_ok=True)
    else:
        os.makedirs(os.path.dirname(f".{path}"), exist_ok=True)
        os.close(os.open(f".{path}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _clone(path: str, attributes: int) -> int:
    """Return a descriptor of a copy of what is mounted at a path, attached nowhere."""
    tree = call("open_tree", _HERE, os.fsencode(path), _CLONE | _RECURSIVE | _CLOEXEC)
    settings = struct.pack("=QQQQ", attributes, 0, 0, 0)
    call("mount_setattr", tree, b"", _EMPTY_PATH | _RECURSIVE, settings, len(settings))
    return tree


def _new_filesystem(kind: str, attributes: int, **options: str) -> int:
    context = call("fsopen", kind.encode(), 1)
    try:
        for name, value in options.items():
            call("fsconfig", context, _SET_TEXT, name.encode(), value.encode(), 0)
        call("fsconfig", context, _CREATE, None, None, 0)
        return call("fsmount", context, 1, attributes)
    finally:
        os.close(context)


def _attach(tree: int, path: str) -> None:
    call("move_mount", tree, b"", _HERE, os.fsencode(path), _FROM_EMPTY_PATH)
