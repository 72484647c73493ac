"""Requests that arrive by themselves: synthetic traces, each the same for the same seed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Request:
    """One invocation that somebody asks for."""

    arrives: float  # seconds
    cpu_seconds: float  # on the one core that its instance's loop has
    io_seconds: float  # afterwards, beside all others


Work = Callable[[random.Random], tuple[float, float]]


def awaiting(chance: random.Random) -> tuple[float, float]:
    """Mostly waits for others: 1 ms of CPU, about 100 ms of I/O."""
    return 0.001, chance.expovariate(1 / 0.1)


def mixed(chance: random.Random) -> tuple[float, float]:
    """Every fifth computes for about 80 ms; the others wait."""
    if chance.random() < 0.2:
        return chance.expovariate(1 / 0.08), 0.0
    return awaiting(chance)


def poisson(seed: int, *, seconds: float, per_second: float, work: Work) -> list[Request]:
    """Independent callers at a constant rate."""
    return _arrivals(seed, seconds, lambda _: per_second, per_second, work)


def bursts(seed: int, *, seconds: float, per_second: float, work: Work) -> list[Request]:
    """Nothing, and every 30 seconds for one second thirty times the mean."""
    most = 30 * per_second
    return _arrivals(seed, seconds, lambda now: most if now % 30 < 1 else 0.0, most, work)


def diurnal(seed: int, *, seconds: float, per_second: float, work: Work) -> list[Request]:
    """A day in ten minutes: a sine from nothing to twice the mean."""

    def rate(now: float) -> float:
        return per_second * (1 - math.cos(2 * math.pi * now / 600))

    return _arrivals(seed, seconds, rate, 2 * per_second, work)


def sparse(seed: int, *, seconds: float, per_second: float, work: Work) -> list[Request]:
    """A caller every now and then: a fiftieth of the rate."""
    return poisson(seed, seconds=seconds, per_second=per_second / 50, work=work)


TRACES: Final[dict[str, tuple[Callable[..., list[Request]], Work]]] = {
    "poisson, awaiting": (poisson, awaiting),
    "bursts, awaiting": (bursts, awaiting),
    "diurnal, awaiting": (diurnal, awaiting),
    "sparse, awaiting": (sparse, awaiting),
    "poisson, mixed": (poisson, mixed),
    "bursts, mixed": (bursts, mixed),
}


def recorded(path: Path) -> list[Request]:
    """Read a trace: a JSON object a line with `arrives`, `cpu_seconds` and `io_seconds`."""
    lines = path.read_text().splitlines()
    return sorted((Request(**json.loads(line)) for line in lines), key=lambda each: each.arrives)


def _arrivals(
    seed: int, seconds: float, rate: Callable[[float], float], most: float, work: Work
) -> list[Request]:
    """Thin a Poisson process of the highest rate to the rate of each moment."""
    chance = random.Random(seed)
    times = _poisson_times(chance, seconds, most)
    return [Request(now, *work(chance)) for now in times if chance.random() * most < rate(now)]


def _poisson_times(chance: random.Random, seconds: float, per_second: float) -> Iterator[float]:
    now = chance.expovariate(per_second)
    while now < seconds:
        yield now
        now += chance.expovariate(per_second)
