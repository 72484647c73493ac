"""One real platform for all end-to-end tests of a session."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Platform, platform


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A home of its own for one test; short, since sockets live below it."""
    home = Path(tempfile.mkdtemp(prefix="fv-"))
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def running() -> Iterator[Platform]:
    """A platform that all tests share; each deploys apps of its own."""
    home = Path(tempfile.mkdtemp(prefix="fv-"))
    try:
        with platform(home) as running:
            yield running
    finally:
        shutil.rmtree(home, ignore_errors=True)
