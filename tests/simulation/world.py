"""A machine park under a simulated clock: instances, the queue before them, and what is counted.

An instance has one core for its event loop, on which invocations compute one after the other, and
any amount of room for waiting. A policy decides where each request goes and when instances start;
what it sees and does is what a gateway sees and does.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from tests.simulation.traces import Request


class Clock:
    """Calls what is due, in order; equal times in the order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (max(when, self.now), next(self._order), call))

    def run(self, after_each: Callable[[], None]) -> None:
        """Go on until nothing is due."""
        while self._due:
            self.now, _, call = heapq.heappop(self._due)
            call()
            after_each()


class Invocation:
    """A request on its way."""

    __slots__ = ("began", "cpu_ends", "ended", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.began: float | None = None  # when its code starts, where it is now
        self.cpu_ends = 0.0
        self.ended: float | None = None

    @property
    def waited(self) -> float:
        """For how long it did nothing of its own."""
        own = self.request.cpu_seconds + self.request.io_seconds
        return (self.ended or 0.0) - self.request.arrives - own


class Instance:
    """One process."""

    def __init__(self, name: str, clock: Clock, limit: int, started: float) -> None:
        self.id = name
        self.limit = limit
        self.headroom = 1.0
        self.trouble = ""
        self.started = started
        self.is_ready = False
        self.in_flight: set[Invocation] = set()
        self.ended_count = 0
        self.idle_since = started
        self.busy_until = 0.0  # its core
        self._clock = clock
        self._ready: deque[Invocation] = deque()  # in the order in which they get the core

    @property
    def room(self) -> int:
        """How many more it takes."""
        if self.trouble or not self.is_ready:
            return 0
        return self.limit - len(self.in_flight)

    def place(self, invocation: Invocation, on_end: Callable[[Instance, Invocation], None]) -> None:
        """Run it: the core when it is free, then I/O."""
        invocation.began = began = max(self._clock.now, self.busy_until)
        invocation.cpu_ends = self.busy_until = began + invocation.request.cpu_seconds
        self.in_flight.add(invocation)
        self._ready.append(invocation)

        def end() -> None:
            if invocation.began == began and invocation in self.in_flight:  # else taken back
                self.in_flight.remove(invocation)
                self.ended_count += 1
                invocation.ended = self._clock.now
                if not self.in_flight:
                    self.idle_since = self._clock.now
                on_end(self, invocation)

        self._clock.at(invocation.cpu_ends + invocation.request.io_seconds, end)

    @property
    def lag(self) -> float:
        """How late a beat of the loop would be."""
        return max(0.0, self.busy_until - self._clock.now)

    def take_back(self) -> list[Invocation]:
        """Return what has not begun; it runs elsewhere."""
        taken = [each for each in self._ready if (each.began or 0.0) > self._clock.now]
        self._ready = deque(each for each in self._ready if each not in taken)
        for each in taken:
            self.in_flight.discard(each)
            each.began = None
        self.busy_until = max((each.cpu_ends for each in self._ready), default=self._clock.now)
        return taken


class Policy(Protocol):
    """Where requests go, and when instances start and end."""

    def attach(self, park: Park) -> None: ...
    def arrived(self, invocation: Invocation) -> None: ...
    def ready(self, instance: Instance) -> None: ...
    def ended(self, instance: Instance) -> None: ...


@dataclass(slots=True)
class Report:
    """What one policy did with one trace."""

    requests: int = 0
    served: int = 0
    refused: int = 0
    cold_starts: int = 0
    most_instances: int = 0
    instance_seconds: float = 0.0
    waits: list[float] = field(default_factory=list[float])

    def wait(self, share: float) -> float:
        """Return the waiting that this share of the requests does not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Park:
    """All instances of one deployment, and the queue."""

    def __init__(self, policy: Policy, *, cold_seconds: float, most: int) -> None:
        self.clock = Clock()
        self.cold_seconds = cold_seconds
        self.most = most
        self.instances: dict[str, Instance] = {}
        self.starting = 0
        self.queue: deque[Invocation] = deque()
        self.report = Report()
        self._policy = policy
        self._names = itertools.count()
        policy.attach(self)

    def play(self, trace: list[Request]) -> Report:
        """Let all of a trace arrive, and everything end."""
        for request in trace:
            invocation = Invocation(request)
            self.clock.at(request.arrives, partial(self._policy.arrived, invocation))
        self.report.requests = len(trace)
        self.clock.run(self._check)
        for instance in list(self.instances.values()):
            self.stop(instance)
        return self.report

    def start(self, limit: int) -> None:
        """Start an instance; it is ready when a cold start is over."""
        self.starting += 1
        self.report.cold_starts += 1
        started = self.clock.now
        self.report.most_instances = max(
            self.report.most_instances, len(self.instances) + self.starting
        )

        def ready() -> None:
            self.starting -= 1
            instance = Instance(f"i{next(self._names)}", self.clock, limit, started)
            instance.is_ready = True
            instance.idle_since = self.clock.now
            self.instances[instance.id] = instance
            self._policy.ready(instance)

        self.clock.at(started + self.cold_seconds, ready)

    def stop(self, instance: Instance) -> None:
        """End an instance without work."""
        if self.instances.pop(instance.id, None) is not None:
            ended = max(instance.idle_since, instance.started)
            self.report.instance_seconds += max(self.clock.now, ended) - instance.started

    def place(self, instance: Instance, invocation: Invocation) -> None:
        """Send it there."""
        instance.place(invocation, self._ended)

    def refuse(self) -> None:
        """Tell somebody to come back later."""
        self.report.refused += 1

    def _check(self) -> None:
        """Look at what must hold between any two events, whatever the policy."""
        if len(self.instances) + self.starting > self.most:
            raise AssertionError(f"more than {self.most} instances")
        if self.queue and any(each.room > 0 for each in self.instances.values()):
            raise AssertionError("an invocation waits although an instance has room")

    def _ended(self, instance: Instance, invocation: Invocation) -> None:
        self.report.served += 1
        self.report.waits.append(invocation.waited)
        self._policy.ended(instance)
