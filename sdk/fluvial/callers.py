"""Who asks: whether workflow code acts here, and whose code it is that asks for something.

Not all that runs while a workflow's loop does is the workflow's doing. An import runs the module's
body once per process, not once per run; a finaliser runs when the garbage collector likes; a
debugger is somebody else's tool. What these ask is answered as anywhere else.
"""

from __future__ import annotations

import functools
import os
import sys
import weakref
from types import FrameType
from typing import Final

from fluvial.loop import WorkflowLoop, current_loop
from fluvial.origins import Origin, origin_of, python_module

_DRIVER: Final = WorkflowLoop.run_until_idle.__code__
_FINALIZER: Final = vars(weakref.finalize)["__call__"].__code__
_IMPORT: Final = "<frozen importlib._bootstrap>"
_LOOKUP: Final = origin_of.__wrapped__.__code__.co_filename  # it looks into folders itself
_DEBUGGERS: Final = ("pydevd", "debugpy")
USER: Final = "user"
INSTALLED: Final = "installed"
# They do what their caller says with what their caller names.
_ON_BEHALF: Final = frozenset(
    {
        "_collections_abc", "_compression", "_pyio", "asyncio", "bz2", "codecs", "compression",
        "concurrent", "configparser", "contextlib", "dbm", "filecmp", "fileinput", "functools",
        "genericpath", "glob", "gzip", "io", "lzma", "mailbox", "netrc", "os", "pathlib",
        "posixpath", "queue", "selectors", "shelve", "shutil", "signal", "socket", "sqlite3",
        "subprocess", "tarfile", "tempfile", "threading", "wave", "zipfile",
    }
)  # fmt: skip


def acting_loop() -> WorkflowLoop | None:
    """Return the workflow's loop if it is workflow code that runs here."""
    loop = current_loop()
    if loop is None:
        return None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    while frame is not None:
        code = frame.f_code
        if code is _DRIVER:
            break
        if code.co_name == "__del__" or code is _FINALIZER or _stands_aside(code.co_filename):
            return None
        frame = frame.f_back
    return loop


def asker() -> str:
    """Return who asks for what is being done: USER, INSTALLED, or a standard module's name.

    Modules that do as their caller says (`pathlib`, `shutil`, …) do not count: their caller does.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - documented
    while frame is not None and frame.f_code is not _DRIVER:
        filename = frame.f_code.co_filename
        match origin_of(filename):
            case Origin.USER:
                return USER
            case Origin.INSTALLED:
                return INSTALLED
            case Origin.PYTHON:
                module = python_module(filename)
                if module not in _ON_BEHALF:
                    return module
            case Origin.OWN | Origin.GENERATED:
                pass
        frame = frame.f_back
    return USER


@functools.lru_cache(maxsize=4096)
def _stands_aside(filename: str) -> bool:
    if filename in {_IMPORT, _LOOKUP} or os.path.basename(filename) == "bdb.py":
        return True
    return any(name in filename for name in _DEBUGGERS)
