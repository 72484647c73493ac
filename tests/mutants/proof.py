"""A pytest plugin: the tests must import the sources that the mutant is in.

Installed packages, and above all editable installs, might win over the copy: every mutant would
survive, or tests that fail for another reason would seem to kill all.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Final

import pytest

ROOM: Final = "FLUVIAL_MUTANT_ROOM"  # the folder from which they must come
MODULES: Final = "FLUVIAL_MUTANT_MODULES"  # which modules, with spaces between
IS_FOREIGN: Final = 42  # exit code: another copy was imported


def pytest_sessionstart() -> None:
    """Import the modules before any test does, and look where they are from."""
    room = Path(os.environ[ROOM])
    for name in os.environ[MODULES].split():
        path = Path(importlib.import_module(name).__file__ or "")
        if room not in path.parents:
            pytest.exit(f"{name} comes from {path} and not from {room}", returncode=IS_FOREIGN)
