"""Sizes as people write them: "256MiB", "1GB", 1024."""

from __future__ import annotations

import re
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
_CHARACTERS: Final = 32  # more than any size needs; bounds the work of a hostile text


def parse_bytes(value: object) -> int:
    """Return a size such as "256MiB", "1GB" or a plain number of bytes.

    Raises:
        ValueError: `value` is not a size; the message says what one looks like.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = value if isinstance(value, str) and len(value) <= _CHARACTERS else ""
    match = _NUMBER_AND_UNIT.fullmatch(text)
    factor = _BYTES.get(match.group(2)) if match else None
    if match is None or factor is None:
        units = ", ".join(unit for unit in _BYTES if unit)
        raise ValueError(f'must be a size such as "256MiB" ({units}), got {value!r}')
    return int(float(match.group(1)) * factor)
