"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fluvial.durations import to_seconds
from fluvial.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("1h 30m", 5400),
        ("1h30m", 5400),
        ("45s", 45),
        ("500ms", 0.5),
        ("1.5d", 129_600),
        ("2w", 1_209_600),
        ("90", 90),
        (90, 90),
        (0, 0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120),
    ],
)
def test_durations(duration: Any, seconds: float) -> None:
    assert to_seconds(duration) == seconds


@pytest.mark.parametrize(
    "duration",
    ["", "soon", "1x", "h", "1h later", "-5s", -1, float("nan"), float("inf"), "1e9w", 10**12],
)
def test_what_is_no_duration_is_refused(duration: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        to_seconds(duration, "timeout")
