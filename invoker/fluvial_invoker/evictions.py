"""Which of several things in memory to give up first: greedy dual, by size and frequency.

The value of a thing is what it would cost to make it again, times how often it was used, divided by
its size, above a floor. The floor is the value of what was given up last: so whatever is not used
any more falls behind, however valuable it was (Cherkasova 1998; FaasCache, ASPLOS 2021).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_MIB: Final = 1024 * 1024


class Values:
    """The values of things, by key."""

    def __init__(self) -> None:
        self._floor = 0.0
        self._uses: dict[str, int] = {}
        self._values: dict[str, float] = {}

    def use(self, key: str, *, cost_ms: float, size_bytes: int) -> None:
        """Note that a thing was made or used."""
        uses = self._uses[key] = self._uses.get(key, 0) + 1
        self._values[key] = self._floor + cost_ms * uses / max(1.0, size_bytes / _MIB)

    def least(self, keys: Iterable[str]) -> str | None:
        """Return the least valuable of these; None if there are none."""
        return min(keys, key=lambda key: (self._values.get(key, 0.0), key), default=None)

    def give_up(self, key: str) -> None:
        """Forget a thing because room was needed: the others must now be worth more than it was."""
        self._floor = max(self._floor, self._values.get(key, 0.0))
        self.forget(key)

    def forget(self, key: str) -> None:
        """Forget a thing that is gone for another reason."""
        self._uses.pop(key, None)
        self._values.pop(key, None)
