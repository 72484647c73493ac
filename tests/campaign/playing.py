"""Playing seeds: one schedule after the other, and a failing one again with less and less in it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.campaign.checking import check
from tests.campaign.plans import Plan, draw, smaller
from tests.campaign.script import Script
from tests.campaign.world import World

SHRINKING_PLAYS: Final = 400
HISTORY_LINES: Final = 150


@dataclass(frozen=True, slots=True)
class Played:
    """One schedule that was played."""

    plan: Plan
    world: World
    decisions: Mapping[int, int]  # those that were not ordinary, by position
    error: BaseException | None

    def __str__(self) -> str:
        lines = self.world.core.history.lines()
        return "\n".join(
            [
                str(self.plan),
                f"{len(self.decisions)} decisions that are not the ordinary one",
                *lines[-HISTORY_LINES:],
                f"and then: {type(self.error).__name__}: {self.error}",
            ]
        )


@dataclass(slots=True)
class Tally:
    """What many schedules have shown."""

    schedules: int = 0
    hits: Counter[str] = field(default_factory=Counter[str])
    planned: int = 0  # faults
    happened: int = 0
    failed: Played | None = None

    @property
    def hit_rate(self) -> float:
        """How many of the planned faults have happened."""
        return self.happened / self.planned if self.planned else 1.0


def play(plan: Plan, kept: Mapping[int, int] | None = None) -> Played:
    """Play a plan as its seed decides, or with the decisions that are `kept`."""
    script = Script(plan.seed, kept)
    world = World(plan, script)
    error: BaseException | None = None
    try:
        asyncio.run(world.play())
        check(world)
    except Exception as raised:  # noqa: BLE001 - whatever it is, the schedule has failed
        error = raised
    return Played(plan, world, script.taken, error)


def play_seeds(seeds: Iterable[int], *, faults: bool = True) -> Tally:
    """Play seeds until one fails."""
    tally = Tally()
    for seed in seeds:
        played = play(draw(seed, faults=faults))
        tally.schedules += 1
        tally.hits.update(played.world.hits)
        happened = sum(played.world.hits[fault] for fault in played.world.faults)
        tally.happened += happened
        tally.planned += happened + len(played.world.armed)
        if played.error is not None:
            tally.failed = played
            break
    return tally


def shrink(failed: Played) -> Played:
    """Return a smaller schedule that fails too: fewer runs, shorter programs, fewer decisions."""
    return _Shrinking(failed).best


class _Shrinking:
    """Delta debugging over the plan and over the decisions that are not the ordinary one."""

    def __init__(self, failed: Played) -> None:
        self.best = failed
        self._plays = 0
        again = play(failed.plan, failed.decisions)
        if again.error is None:
            return  # it does not fail again: there is nothing to be made smaller
        size = -1
        while size != self._size() and self._plays < SHRINKING_PLAYS:
            size = self._size()
            self._shrink_plan()
            self._shrink_decisions()

    def _size(self) -> int:
        plan = self.best.plan
        return len(self.best.decisions) + 10 * (len(plan.programs) + plan.size + len(plan.steering))

    def _shrink_plan(self) -> None:
        is_smaller = True
        while is_smaller:
            is_smaller = False
            for plan in smaller(self.best.plan):
                # Its own seed, too: with other runs, the old decisions mean other things.
                if self._fails(plan, self.best.decisions) or self._fails(plan, None):
                    is_smaller = True
                    break

    def _shrink_decisions(self) -> None:
        length = max(1, len(self.best.decisions) // 2)
        while True:
            start = 0
            while start < len(self.best.decisions):
                kept = list(self.best.decisions.items())
                left = dict(kept[:start] + kept[start + length :])
                if not self._fails(self.best.plan, left):
                    start += length
            if length == 1:
                return
            length //= 2

    def _fails(self, plan: Plan, kept: Mapping[int, int] | None) -> bool:
        if self._plays >= SHRINKING_PLAYS:
            return False
        self._plays += 1
        played = play(plan, kept)
        if played.error is None or (
            kept is not None and len(played.decisions) > len(self.best.decisions)
        ):
            return False
        self.best = played
        return True
