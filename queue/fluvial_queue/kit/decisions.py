"""Who decides what happens next, where several things could."""

from __future__ import annotations

import random
from typing import Protocol


class Decisions(Protocol):
    """Makes the choices of a schedule."""

    @property
    def is_in_order(self) -> bool:
        """Whether the choice is always the first thing."""
        ...

    def choose(self, count: int) -> int:
        """Return a number below `count`; 0 is what was asked for first."""
        ...


class InOrder:
    """Everything happens in the order in which it was asked for."""

    is_in_order = True

    def choose(self, count: int) -> int:
        """Return 0."""
        return 0


class Seeded:
    """Any order, as a seed decides."""

    is_in_order = False

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, count: int) -> int:
        """Return a random number below `count`."""
        return self._random.randrange(count)
