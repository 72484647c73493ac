"""What an instance says of its health, checked as a stranger's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

from fluvial.errors import WireError

LAG: Final = "lag"
TROUBLES: Final = frozenset({LAG, "cpu", "memory", "descriptors", "threads"})
_OTHER: Final = "other"
_NUMBERS: Final = 7  # of a sample
_FIELDS: Final = 5  # of a HEALTH header
_MAX_NUMBER: Final = 1 << 53
_LEAST_HEADROOM: Final = 0.05  # a busy instance with room stays better than none


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """One sample of the instance's watchdog."""

    trouble: str  # one of TROUBLES or "other"; empty: it takes more
    claimed: int | None  # what has a greater id has not started and will not; None: says nothing
    limit: int
    cpu_share: float
    memory_share: float

    @property
    def headroom(self) -> float:
        """How much of the scarcer of its two resources is free, of 1."""
        return max(_LEAST_HEADROOM, 1.0 - max(self.cpu_share, self.memory_share))


def read_health(header: list[Any]) -> Health:
    """Return what a HEALTH frame says.

    Raises:
        WireError: its fields are not what they must be.
    """
    if len(header) < _FIELDS:
        raise WireError("a HEALTH frame lacks fields")
    trouble, claimed, numbers = header[2], header[3], header[4]
    if not isinstance(trouble, str) or not isinstance(claimed, int):
        raise WireError("a HEALTH frame without trouble or claim")
    limit, _in_flight, _lag_us, cpu, memory, *_ = _natural_numbers(numbers)
    return Health(
        trouble=trouble if trouble in TROUBLES or not trouble else _OTHER,
        claimed=claimed if claimed >= 0 else None,
        limit=max(1, limit),
        cpu_share=cpu / 1000,
        memory_share=memory / 1000,
    )


def _natural_numbers(value: object) -> list[int]:
    numbers = cast("list[object]", value) if isinstance(value, list) else []
    natural = [each for each in numbers if isinstance(each, int) and 0 <= each <= _MAX_NUMBER]
    if len(natural) != len(numbers) or len(natural) < _NUMBERS:
        raise WireError("a sample that is not made of natural numbers")
    return natural
