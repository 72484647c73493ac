"""Spans of time as people write them, in seconds; below everything, so that errors can use it."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

Duration = str | int | float | timedelta
"""A text such as `"1h 30m"` (units w, d, h, m, s, ms), a number of seconds, or a timedelta."""

MAX_SECONDS: Final = 100 * 365 * 86_400  # a hundred years: what is longer is a mistake
_UNITS: Final = {"w": 604_800.0, "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[wdhms])\s*")
_NUMBER = re.compile(r"\s*\d+(?:\.\d+)?\s*")


def parse_seconds(duration: Duration, what: str) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: it is negative, not finite, above a hundred years or not understood; the
            message names `what`.
    """
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, str):
        seconds = _parse(duration, what)
    else:
        seconds = float(duration)
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(
            f"{what} must be between 0 and {MAX_SECONDS} seconds (a hundred years),"
            f" got {duration!r}"
        )
    return seconds


def _parse(text: str, what: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    seconds, position = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != position:
            break
        seconds += float(part.group(1)) * _UNITS[part.group(2)]
        position = part.end()
    if position == 0 or position != len(text):
        raise ValueError(
            f'{what}: {text!r} is not a duration; write for example "1h 30m", "45s" or "500ms"'
            " (units: w d h m s ms)"
        )
    return seconds
