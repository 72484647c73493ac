"""When to start another instance, how long the queue will take, and whom to refuse: no I/O here.

The pools ask at events (something is queued, ends, is sent back, a start fails or succeeds), and
`tests/simulation` drives the same code under a clock of its own.

The one rule: start another instance when whoever waits would wait longer for a place than a start
takes. Both sides are measured. Places become free at the rate at which invocations end while
something waits: then all places are taken, and by Little's law the time between two ends, times the
places, is how long an invocation holds one. A start is as long as the last ones of the deployment.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FIRST_COLD_SECONDS: Final = 0.25  # until one was measured: of a fork that imports an app
_COLD_WEIGHT: Final = 0.3
_HELD_WEIGHT: Final = 0.1
_MAX_FORECASTS: Final = 1000
_FEW_ENDS: Final = 8  # before it is believed enough to refuse somebody for it


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a deployment's instances stand at one moment."""

    waiting: int  # invocations without an instance
    starting: int  # starts asked for, of which nothing is known yet
    living: int  # instances that count against `most`
    most: int  # instances at once, `max_instances`
    least: int = 0  # instances at once, also without work
    places: int = 0  # taken ones, on instances that will give them to others
    room_of_one: int = 1  # what a fresh instance will take, by what is measured of the others


class Forecast:
    """What a deployment's past says about its next seconds."""

    __slots__ = ("_cold", "_ended_at", "_ends", "_held")

    def __init__(self) -> None:
        self._cold = 0.0
        self._held = 0.0  # for how long an invocation holds its place; 0: not known
        self._ends = 0  # that this is known from
        self._ended_at = 0.0  # the last one, or since when there can be one

    @property
    def cold_seconds(self) -> float:
        """How long a start takes."""
        return self._cold or FIRST_COLD_SECONDS

    def started(self, seconds: float) -> None:
        """An instance that was not there before became ready after so long."""
        self._cold += (_COLD_WEIGHT if self._cold else 1.0) * (seconds - self._cold)

    def count_from(self, now: float) -> None:
        """Something waits, and places become free from now on only."""
        self._ended_at = now

    def ended(self, now: float, places: int) -> None:
        """An invocation gave back one of so many places, while something waited."""
        held = (now - self._ended_at) * places
        self._ended_at = now
        self._ends += 1
        self._held += max(_HELD_WEIGHT, 1 / self._ends) * (held - self._held)

    def wait_seconds(self, waiting: int, standing: Standing) -> float | None:
        """Return how long whoever is behind so many will wait for a place; None: not known."""
        if not self._ends or not standing.places:
            return None
        return waiting * self._held / standing.places

    def hopeless_seconds(self, standing: Standing, patience_seconds: float) -> float | None:
        """Return how long the next one would wait, if that is longer than it can.

        None: it may make it, since not enough is known or another instance can be started.
        """
        is_full = standing.living + standing.starting >= standing.most
        if not is_full or self._ends < _FEW_ENDS:
            return None
        seconds = self.wait_seconds(standing.waiting + 1, standing)
        return seconds if seconds is not None and seconds > patience_seconds else None

    def starts_wanted(self, standing: Standing) -> int:
        """Return how many more instances to start now.

        One start under way is enough until more wait than it takes at once, and serves within the
        time of one more start: so nobody waits for more than twice as long as a start takes, and
        an app that starts slowly is not started for each of a crowd that is served meanwhile.
        """
        behind = standing.waiting - self._served_meanwhile(standing)
        useful = math.ceil(behind / self._served_by_one(standing)) if behind > 0 else 0
        missing = standing.least - standing.living
        allowed = standing.most - standing.living
        return max(0, min(max(useful, missing), allowed) - standing.starting)

    def starts_overdue(self, standing: Standing) -> int:
        """Return how many to start when the first has waited as long as a start takes."""
        allowed = standing.most - standing.living - standing.starting
        return min(1, allowed) if standing.waiting and not standing.starting else 0

    def _served_by_one(self, standing: Standing) -> float:
        """How many a fresh instance serves before another one, started when it is ready, would."""
        rounds = self.cold_seconds / self._held if self._held > 0.0 else 0.0
        return max(1, standing.room_of_one) * (1.0 + rounds)

    def _served_meanwhile(self, standing: Standing) -> int:
        """How many of those that wait get a place before a fresh instance could give them one."""
        if not self._ends or not standing.places:
            return 0
        if self._held <= 0.0:
            return standing.waiting
        return int(self.cold_seconds * standing.places / self._held)


class Forecasts:
    """The forecasts of all deployments: they outlive a deployment's last instance."""

    def __init__(self) -> None:
        self._by_deployment: OrderedDict[str, Forecast] = OrderedDict()

    def of(self, deployment: str) -> Forecast:
        """Return a deployment's; those that were not asked for lately are forgotten."""
        forecast = self._by_deployment.setdefault(deployment, Forecast())
        self._by_deployment.move_to_end(deployment)
        if len(self._by_deployment) > _MAX_FORECASTS:
            self._by_deployment.popitem(last=False)
        return forecast


class StartBudget:
    """How many instances may be started: a bucket of starts that fills again with time."""

    __slots__ = ("_burst", "_filled_at", "_left", "_per_second")

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._filled_at = float("-inf")

    def available(self, now: float) -> int:
        """Return how many may be started now."""
        gained = (now - self._filled_at) * self._per_second
        self._left = min(float(self._burst), self._left + gained)
        self._filled_at = now
        return int(self._left)

    def take(self, starts: int) -> None:
        """So many are started; they were available."""
        self._left -= starts

    def seconds_to_next(self) -> float:
        """Return how long to wait for one, as of the last look."""
        return max(0.0, 1.0 - self._left) / self._per_second
