"""Whose code a file holds: the user's, an installed package's, Python's or Fluvial's own."""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
from enum import Enum, auto
from pathlib import Path
from typing import Final

DRIVER: Final = "WorkflowLoop.run_until_idle"  # below its frame is whoever drives a workflow
_PYTHON: Final = sysconfig.get_path("stdlib") + os.sep
_OWN: Final = str(Path(__file__).parent) + os.sep
_FROZEN: Final = "<frozen "
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Origin(Enum):
    """Where a code object comes from."""

    USER = auto()  # the bundle's own modules, or a script
    INSTALLED = auto()  # a dependency
    PYTHON = auto()  # the standard library
    OWN = auto()  # Fluvial
    GENERATED = auto()  # made from text at run time: dataclasses, exec, a shell


@functools.lru_cache(maxsize=4096)
def origin_of(filename: str) -> Origin:
    """Return whose code it is, by a code object's file name."""
    if filename.startswith(_OWN):
        return Origin.OWN
    if filename.startswith(_FROZEN):
        return Origin.PYTHON
    if filename.startswith("<"):
        return Origin.GENERATED
    if any(part in filename for part in _INSTALLED):
        return Origin.INSTALLED
    if filename.startswith(_PYTHON):
        return Origin.PYTHON
    roots = [root for root in sys.path if root and filename.startswith(os.path.join(root, ""))]
    # An app's dependencies lie in a plain folder on the path; installers leave their records there.
    if roots and _holds_distributions(max(roots, key=len)):
        return Origin.INSTALLED
    return Origin.USER


def python_module(filename: str) -> str:
    """Return the top-level name of the standard library's module that a file belongs to."""
    if filename.startswith(_FROZEN):
        name = filename.removeprefix(_FROZEN).rstrip(">")
        return name.partition(".")[0]
    inside = filename.removeprefix(_PYTHON)
    return inside.partition(os.sep)[0].removesuffix(".py")


@functools.cache
def _holds_distributions(root: str) -> bool:
    try:
        return any(name.endswith(".dist-info") for name in os.listdir(root))
    except OSError:
        return False
