"""The stores on which whole applications are played."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fluvial.testing import Mode
from fluvial_queue import open_store
from tests.integration.in_process import Application, Main, run_application

PlayOn = Callable[..., Application]


@pytest.fixture(params=["memory", "valkey"])
def play_application(request: pytest.FixtureRequest) -> PlayOn:
    """Runs a test's coroutine with a dispatcher and instances on each store."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey_url")

    def play(main: Main, *, mode: Mode = "live", **limits: int) -> Application:
        return run_application(open_store(url), main, mode=mode, **limits)

    return play
