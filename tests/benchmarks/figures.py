"""What a row of the performance table yields."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity on both sides; `ratio` is ours over theirs, pair by pair."""

    name: str
    unit: str
    ours: list[float]
    theirs: list[float] = field(default_factory=list[float])
    target: str = ""

    @property
    def ratios(self) -> list[float]:
        pairs = zip(self.ours, self.theirs, strict=True) if self.theirs else ()
        return [a / b for a, b in pairs if b]


def spread(values: list[float]) -> str:
    """Return `median [min … max]`."""
    if not values:
        return "–"
    return f"{statistics.median(values):.3g} [{min(values):.3g} … {max(values):.3g}]"
