"""Plans: what a schedule is about, drawn from a seed and made smaller by shrinking."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from fluvial.testing import Mode
from tests.campaign.programs import PROGRAMS

MODES: Final[tuple[Mode, ...]] = ("live", "replay", "evict")
STEERING: Final = ("cancel", "terminate", "pause", "resume", "wake", "retry", "tag")
MAX_RUNS: Final = 3
MAX_SIZE: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which runs there are, and how much happens to them."""

    seed: int
    programs: tuple[str, ...]  # a run of each
    size: int
    mode: Mode
    faults: int  # at most so many
    fault_rate: float  # of all that happens
    steering: tuple[str, ...]  # what others may ask of the runs
    steering_rate: float
    haste: float  # how often time moves although something else could happen
    compares_values: bool  # a replay must come to the same arguments and results, too

    def __str__(self) -> str:
        steering = ", ".join(self.steering) or "nobody steers"
        return (
            f"seed {self.seed}: {', '.join(self.programs)} of size {self.size}, {self.mode},"
            f" at most {self.faults} faults, {steering}"
        )


def draw(seed: int, *, faults: bool = True) -> Plan:
    """Return the plan of a seed."""
    chance = random.Random(f"plan {seed}")
    names = [program.name for program in PROGRAMS]
    steered = chance.random() < 0.5
    count = 1 if chance.random() < 0.4 else chance.randint(2, MAX_RUNS)
    return Plan(
        seed=seed,
        programs=tuple(chance.choice(names) for _ in range(count)),
        size=chance.randint(1, MAX_SIZE),
        mode=chance.choice(MODES),
        faults=chance.randint(1, 6) if faults else 0,
        fault_rate=chance.choice((0.02, 0.08, 0.2)),
        steering=tuple(sorted(chance.sample(STEERING, chance.randint(1, 3)))) if steered else (),
        steering_rate=chance.choice((0.01, 0.05)),
        haste=chance.choice((0.0, 0.05, 0.2)),
        compares_values=chance.random() < 0.25,  # it costs as much as all else
    )


def smaller(plan: Plan) -> Iterator[Plan]:
    """Yield plans that are a little simpler."""
    for index in range(len(plan.programs)):
        if len(plan.programs) > 1:
            left = plan.programs[:index] + plan.programs[index + 1 :]
            yield replace(plan, programs=left)
    if plan.size > 1:
        yield replace(plan, size=1)
        yield replace(plan, size=plan.size - 1)
    for index in range(len(plan.steering)):
        yield replace(plan, steering=plan.steering[:index] + plan.steering[index + 1 :])
    if plan.mode != "live":
        yield replace(plan, mode="live")
