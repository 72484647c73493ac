"""The decisions of one schedule: drawn from a seed, kept, and played again with some left out.

Every decision is a number; 0 is the ordinary one: what was asked for first, no fault, time stands
still. So a schedule is the few decisions that are not 0, and a smaller set of them is a schedule
too: that is what shrinking tries.
"""

from __future__ import annotations

import random
from collections.abc import Mapping


class Script:
    """Decisions for an engine and for the world around it."""

    is_in_order = False

    def __init__(self, seed: int, kept: Mapping[int, int] | None = None) -> None:
        """With `kept` (position → decision), nothing is drawn: what is not in it is 0."""
        self._random = random.Random(seed)
        self._kept = kept
        self.taken: dict[int, int] = {}  # all decisions that were not 0, by position
        self._position = 0

    def choose(self, count: int) -> int:
        """Return a number below `count`; each is as likely."""
        return self._decide(count, 1.0)

    def seldom(self, count: int, rate: float) -> int:
        """Return 0, or with the probability `rate` another number below `count`."""
        return self._decide(count, rate)

    def _decide(self, count: int, rate: float) -> int:
        self._position += 1
        if count <= 1:
            return 0
        if self._kept is not None:
            decision = self._kept.get(self._position, 0) % count
        elif rate == 1.0:
            decision = self._random.randrange(count)
        else:
            is_ordinary = self._random.random() >= rate
            decision = 0 if is_ordinary else self._random.randrange(1, count)
        if decision:
            self.taken[self._position] = decision
        return decision
