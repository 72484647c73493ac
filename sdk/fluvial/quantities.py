"""Quantities as people write them: "256MiB", "1.5h", "500ms"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

_NUMBER_AND_UNIT: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BYTES: Final = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DIGITS: Final = 32  # more digits than any quantity needs; bounds the work of a hostile text


def parse_bytes(value: object) -> int:
    """Return a size such as "256MiB", "1GB" or a plain number of bytes.

    Raises:
        ValueError: `value` is not a size; the message says what one looks like.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    number, factor = _split(value, _BYTES, 'a size such as "256MiB" (B, KB, MB, GB, KiB, MiB, GiB)')
    return int(number * factor)


def parse_seconds(value: object) -> float:
    """Return a duration such as "10s", "1.5h" or a plain number of seconds.

    Raises:
        ValueError: `value` is not a duration; the message says what one looks like.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    number, factor = _split(value, _SECONDS, 'a duration such as "10s" (ms, s, m, h, d)')
    return number * factor


def _split(value: object, factors: Mapping[str, float], expected: str) -> tuple[float, float]:
    text = value if isinstance(value, str) and len(value) <= _DIGITS else ""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    factor = factors.get(match.group(2)) if match else None
    if match is None or factor is None:
        raise ValueError(f"must be {expected}, got {value!r}")
    return float(match.group(1)), factor
