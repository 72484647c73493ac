"""Policies to compare: the gateway's own, a fixed concurrency, and Knative's autoscaler.

Ours is the code that runs: `scheduling.Forecast` and `StartBudget`, `instances.choose`, and in the
instance `samples.trouble_of` and `AdaptiveLimit`. Knative's is written anew from its public
description (KPA with its default settings): a decision every 2 s from the mean concurrency of a
stable window of 60 s, and of a panic window of 6 s when that asks for at least twice of what there
is; 70 % of the target as utilisation; requests wait in the activator; to zero 30 s after the last.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from fluvial_gateway.instances import choose
from fluvial_gateway.pool_contract import PoolLimits
from fluvial_gateway.scheduling import Forecast, Standing, StartBudget
from fluvial_invoker.instance.adaptive_limit import AdaptiveLimit
from fluvial_invoker.instance.samples import LAG, MAX_LAG_SECONDS, Sample, trouble_of
from fluvial_invoker.instance.watchdog import PERIOD_SECONDS
from tests.simulation.world import Instance, Invocation, Park

IDLE_SECONDS: Final = 10.0


class Fixed:
    """So many invocations in each instance; another one whenever something waits."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency

    def attach(self, park: Park) -> None:
        self.park = park

    def arrived(self, invocation: Invocation) -> None:
        self.park.queue.append(invocation)
        self.feed()

    def ready(self, instance: Instance) -> None:
        self.feed()
        self.retire_later(instance)

    def ended(self, instance: Instance) -> None:
        self.feed()
        self.retire_later(instance)

    def feed(self) -> None:
        park = self.park
        while park.queue:
            instance = choose(park.instances.values(), None)
            if instance is None:
                break
            park.place(instance, park.queue.popleft())
        self.start_more()

    def start_more(self) -> None:
        park = self.park
        useful = -(-len(park.queue) // self.concurrency)
        allowed = park.most - len(park.instances)
        for _ in range(min(useful, allowed) - park.starting):
            park.start(self.concurrency)

    def retire_later(self, instance: Instance) -> None:
        """End it when it has been idle for long enough."""
        if instance.in_flight:
            return
        since = instance.idle_since

        def retire() -> None:
            if not instance.in_flight and instance.idle_since == since:
                self.park.stop(instance)

        self.park.clock.at(since + IDLE_SECONDS, retire)


class Measured(Fixed):
    """The gateway's: room as measured, another instance when waiting would take longer."""

    def __init__(self, concurrency: int = 100, limits: PoolLimits | None = None) -> None:
        super().__init__(concurrency)
        self._limits = limits or PoolLimits()
        self._forecast = Forecast()
        self._budget = StartBudget(
            self._limits.deployment_burst, self._limits.deployment_starts_per_second
        )
        self._adaptive: dict[str, AdaptiveLimit] = {}
        self._sampling: set[str] = set()
        self._is_overdue_armed = False

    def arrived(self, invocation: Invocation) -> None:
        park = self.park
        if park.queue and self._overload() is not None:
            park.refuse()
            return
        if not park.queue:
            self._forecast.count_from(park.clock.now)
        super().arrived(invocation)

    def ready(self, instance: Instance) -> None:
        self._forecast.started(self.park.clock.now - instance.started)
        self._forecast.count_from(self.park.clock.now)
        self._adaptive[instance.id] = AdaptiveLimit(self.concurrency)
        super().ready(instance)

    def ended(self, instance: Instance) -> None:
        if self.park.queue:
            self._forecast.ended(self.park.clock.now, self._places() + 1)
        super().ended(instance)

    def feed(self) -> None:
        super().feed()
        for instance in self.park.instances.values():
            if instance.in_flight and instance.id not in self._sampling:
                self._sampling.add(instance.id)
                self._sample_later(instance, instance.ended_count)

    def start_more(self) -> None:
        standing = self._standing()
        self._start(self._forecast.starts_wanted(standing))
        park = self.park
        if park.queue and not self._is_overdue_armed and standing.living < standing.most:
            self._is_overdue_armed = True
            first = park.queue[0]
            park.clock.at(
                park.clock.now + self._forecast.cold_seconds, lambda: self._overdue(first)
            )

    def _overdue(self, first: Invocation) -> None:
        self._is_overdue_armed = False
        if self.park.queue and self.park.queue[0] is first:
            self._start(self._forecast.starts_overdue(self._standing()))
        self.start_more()

    def _start(self, wanted: int) -> None:
        now = self.park.clock.now
        granted = min(wanted, self._budget.available(now))
        self._budget.take(granted)
        if granted < wanted:
            self.park.clock.at(now + self._budget.seconds_to_next() + 1e-6, self.start_more)
        for _ in range(granted):
            self.park.start(self.concurrency)

    def _overload(self) -> float | None:
        standing = self._standing()
        if standing.waiting >= self._limits.queue_length:
            return 0.0
        return self._forecast.hopeless_seconds(standing, self._limits.queue_seconds)

    def _places(self) -> int:
        each = self.park.instances.values()
        return sum(len(instance.in_flight) for instance in each if not instance.trouble)

    def _standing(self) -> Standing:
        park = self.park
        return Standing(
            waiting=len(park.queue),
            starting=park.starting,
            living=len(park.instances),
            most=park.most,
            places=self._places(),
            room_of_one=max(
                (each.limit for each in park.instances.values()), default=self.concurrency
            ),
        )

    # What the watchdog of an instance does

    def _sample_later(self, instance: Instance, ended: int) -> None:
        clock = self.park.clock
        clock.at(clock.now + PERIOD_SECONDS, lambda: self._sample(instance, ended))

    def _sample(self, instance: Instance, ended: int) -> None:
        lag = instance.lag
        if lag > MAX_LAG_SECONDS:
            clock = self.park.clock
            clock.at(clock.now + MAX_LAG_SECONDS, lambda: self._blocked(instance, ended))
        else:
            self._judge(instance, ended, lag)

    def _blocked(self, instance: Instance, ended: int) -> None:
        """The beat was not answered in time: revoke what has not begun, and wait for the loop."""
        self._adaptive[instance.id].trouble(len(instance.in_flight))
        instance.trouble = LAG
        taken = instance.take_back()
        self.park.queue.extendleft(reversed(taken))
        clock = self.park.clock
        clock.at(clock.now + instance.lag, lambda: self._judge(instance, ended, instance.lag))
        self.feed()

    def _judge(self, instance: Instance, ended: int, lag: float) -> None:
        limit = self._adaptive[instance.id]
        sample = Sample(
            in_flight=len(instance.in_flight), limit=limit.now, lag_seconds=lag, cpu_share=0.0
        )
        instance.trouble = trouble_of(sample)
        limit.calm(sample.in_flight, instance.ended_count - ended, PERIOD_SECONDS)
        instance.limit = limit.now
        if instance.in_flight and instance.id in self.park.instances:
            self._sample_later(instance, instance.ended_count)
        else:
            self._sampling.discard(instance.id)
        self.feed()


class Knative(Fixed):
    """KPA: desired instances from mean concurrency, every two seconds."""

    TICK_SECONDS = 2.0
    STABLE_SECONDS = 60.0
    PANIC_SECONDS = 6.0
    UTILISATION = 0.7
    PANIC_THRESHOLD = 2.0
    GRACE_SECONDS = 30.0

    def __init__(self, concurrency: int) -> None:
        super().__init__(concurrency)
        self._samples: deque[tuple[float, float]] = deque()  # time, mean concurrency before it
        self._busy_seconds = 0.0  # since the last tick, of all requests together
        self._counted_at = 0.0
        self._panic_until = 0.0
        self._panic_most = 0
        self._is_ticking = False
        self._last_busy = 0.0

    def arrived(self, invocation: Invocation) -> None:
        self._count()
        super().arrived(invocation)
        park = self.park
        if not park.instances and not park.starting:
            park.start(self.concurrency)  # the activator asks for the first one at once
        if not self._is_ticking:
            self._is_ticking = True
            park.clock.at(park.clock.now + self.TICK_SECONDS, self._tick)

    def ended(self, instance: Instance) -> None:
        self._count(just_ended=1)
        super().ended(instance)

    def _count(self, *, just_ended: int = 0) -> None:
        """Add up concurrency over time, as the queue proxies and the activator report it."""
        park, now = self.park, self.park.clock.now
        busy = sum(len(each.in_flight) for each in park.instances.values()) + len(park.queue)
        self._busy_seconds += (now - self._counted_at) * (busy + just_ended)
        self._counted_at = now
        if busy or just_ended:
            self._last_busy = now

    def start_more(self) -> None:
        """Only ticks start more."""

    def retire_later(self, instance: Instance) -> None:
        """Only ticks end any."""

    def _tick(self) -> None:
        park, now = self.park, self.park.clock.now
        self._count()
        busy = self._busy_seconds
        self._samples.append((now, busy / self.TICK_SECONDS))
        self._busy_seconds = 0.0
        while self._samples[0][0] <= now - self.STABLE_SECONDS:
            self._samples.popleft()
        self._scale(self._desired(now), now)
        if busy or park.instances or park.starting:
            park.clock.at(now + self.TICK_SECONDS, self._tick)
        else:
            self._is_ticking = False
            self._samples.clear()

    def _desired(self, now: float) -> int:
        target = max(0.7, self.concurrency * self.UTILISATION)
        stable = self._mean(now, self.STABLE_SECONDS) / target
        panic = self._mean(now, self.PANIC_SECONDS) / target
        have = max(1, len(self.park.instances))
        if math.ceil(panic) >= self.PANIC_THRESHOLD * have:
            self._panic_until = now + self.STABLE_SECONDS
        if now < self._panic_until:
            self._panic_most = max(self._panic_most, math.ceil(panic))
            return self._panic_most
        self._panic_most = 0
        return max(math.ceil(stable), have // 2)

    def _mean(self, now: float, seconds: float) -> float:
        recent = [value for when, value in self._samples if when > now - seconds]
        return sum(recent) / len(recent)

    def _scale(self, desired: int, now: float) -> None:
        park = self.park
        if desired == 0 and now - self._last_busy < self.GRACE_SECONDS:
            desired = 1
        desired = min(desired, park.most)
        for _ in range(desired - len(park.instances) - park.starting):
            park.start(self.concurrency)
        idle = [each for each in park.instances.values() if not each.in_flight]
        for instance in idle[: max(0, len(park.instances) - desired)]:
            park.stop(instance)
        self.feed()
