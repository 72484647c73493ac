"""The stores on which whole applications are played, and how their turns continue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from fluvial.testing import Mode
from fluvial_queue import open_store
from tests.integration.in_process import Application, Ground, Main, run_application

PlayOn = Callable[..., Application]

STORES: Final = ("memory", "valkey")
GROUNDS: Final = ("memory", "memory-replay", "memory-evict", "valkey")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play on each store, and in each mode; a test with an argument `mode` sees to that itself."""
    if "ground" in metafunc.fixturenames:
        grounds = STORES if "mode" in metafunc.fixturenames else GROUNDS
        metafunc.parametrize("ground", grounds, indirect=True)


@pytest.fixture
def ground(request: pytest.FixtureRequest) -> Ground:
    """Where a test is played."""
    store, _, named = str(request.param).partition("-")
    modes: dict[str, Mode] = {"": "live", "replay": "replay", "evict": "evict"}
    url = "memory://" if store == "memory" else str(request.getfixturevalue("valkey_url"))
    return Ground(url, modes[named])


@pytest.fixture
def play_application(ground: Ground) -> PlayOn:
    """Runs a test's coroutine with a dispatcher and instances on each store, in each mode."""

    def play(main: Main, *, mode: Mode | None = None, **limits: int) -> Application:
        return run_application(open_store(ground.url), main, mode=mode or ground.mode, **limits)

    return play
