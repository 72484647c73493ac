"""The errors of the test kit; `fluvial.errors` draws the tree."""

from __future__ import annotations

from fluvial.errors import FluvialError


class EngineNotFoundError(FluvialError, ImportError):
    """No engine of the test kit is installed."""

    code = "testing_engine_not_found"

    def __init__(self) -> None:
        super().__init__(
            "no engine for fluvial.testing is installed: it comes with the whole package"
            " (`pip install fluvial`), not with the part of it that instances see"
        )


class StuckError(FluvialError, AssertionError):
    """What a test waits for does not happen, and nothing can go on by itself."""

    code = "testing_stuck"


class CrashPointError(FluvialError, AssertionError):
    """A scenario comes to something else when a fault happens at one of its durable points."""

    code = "testing_crash_point"
