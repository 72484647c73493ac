"""The engine as a test sees it: it waits for things, and they happen meanwhile."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial.events import Event, EventType, decode_event
from fluvial.ports import Platform
from fluvial.testing.engines import EngineSettings, Point
from fluvial.testing.errors import StuckError
from fluvial_queue.contract import RunStatus
from fluvial_queue.kit.clock import VirtualClock
from fluvial_queue.kit.decisions import Decisions, InOrder, Seeded
from fluvial_queue.kit.engine import Engine
from fluvial_queue.kit.flights import current_flight
from fluvial_queue.kit.instances import LiveInstances
from fluvial_queue.kit.platform import KitPlatform
from fluvial_queue.kit.points import Points

_SPINS: Final = 20  # turns of the event loop that other tasks of a test get to go on
MAX_HAPPENINGS: Final = 1_000_000  # at one moment; 10,000 parallel steps take about 50,000
PARTITIONS: Final = 2  # so that what one run asks of another crosses a border


class Driver:
    """Lets things happen until what a test waits for has; `fluvial.testing.engines.Engine`."""

    def __init__(self, settings: EngineSettings, decisions: Decisions | None = None) -> None:
        """With `decisions`, the seed of the settings is not used."""
        self.is_automatic = settings.is_automatic
        self._clock = VirtualClock(settings.start_ms)
        if decisions is None:
            decisions = InOrder() if settings.seed is None else Seeded(settings.seed)
        self.core = Engine(
            clock=self._clock,
            decisions=decisions,
            mode=settings.mode,
            partitions=PARTITIONS,
            points=Points(settings.fault),
        )
        self._platform = KitPlatform(settings.keys, settings.registry, self.core.store, self)
        self.core.host(
            LiveInstances(
                settings.registry,
                settings.keys,
                self._platform,
                threads=settings.threads,
                clock=self._clock.seconds,
            )
        )
        self._lock = asyncio.Lock()
        self._happened = 0  # while time stood still
        self._limits: dict[object, float] = {}  # how far the tasks that wait let time move

    @property
    def platform(self) -> Platform:
        """What serves the test."""
        return self._platform

    @property
    def now_ms(self) -> int:
        """The virtual time."""
        return self._clock.now_ms

    @property
    def points(self) -> Sequence[Point]:
        """The durable points so far."""
        return self.core.points.passed

    @property
    def fault_was_hit(self) -> bool:
        """Whether the planned fault has happened."""
        return self.core.points.was_hit

    @property
    def history(self) -> Sequence[str]:
        """What has happened so far, a line each."""
        return self.core.history.lines()

    # ---- letting things happen ----

    async def settle(self) -> None:
        """Let everything happen that can happen now; time stands still."""
        await self._drive(lambda: False, self.now_ms)

    async def reach(self, condition: Callable[[], bool], what: str) -> None:
        """Let things happen until `condition` holds; time moves if the engine is automatic.

        Raises:
            StuckError: it does not come to that.
        """
        flight = current_flight()
        if flight is not None:
            await self.core.flights.wait(flight, condition)
        elif not await self._drive(condition, math.inf if self.is_automatic else self.now_ms):
            raise StuckError(f"{what} does not come about: {self._why()}")

    async def advance(self, milliseconds: int) -> None:
        """Let time pass, and everything happen that becomes due."""
        until_ms = self.now_ms + milliseconds
        await self._drive(lambda: False, until_ms)
        self._clock.move_to(until_ms)
        await self.settle()

    async def pause(self, milliseconds: int | None) -> None:
        """In a step: wait for so much virtual time; None: for ever."""
        flight = current_flight()
        if flight is None:
            raise InvalidRequestError("only a step can pause; a test lets time advance")
        if milliseconds is None:
            await self.core.flights.wait(flight, lambda: False)
            return
        at_ms = self.now_ms + milliseconds
        await self.core.flights.wait(flight, lambda: self.now_ms >= at_ms, at_ms)

    async def crash(self) -> None:
        """Lose everything in memory, now."""
        self.core.faults.crash()

    async def close(self) -> None:
        """Cancel the steps that still run."""
        await self.core.flights.close()

    async def _drive(self, condition: Callable[[], bool], limit_ms: float) -> bool:
        """Go on until `condition` holds (True), or nothing can happen up to `limit_ms`."""
        if current_flight() is not None:
            raise InvalidRequestError("a step must not drive the environment that it runs in")
        me = object()
        self._limits[me] = limit_ms
        is_idle = False
        try:
            while not condition():
                if await self._go_on(condition):
                    is_idle = False
                elif min(self._limits.values()) < limit_ms:
                    await asyncio.sleep(0)  # time stands still until another task is content
                elif is_idle:
                    return condition()
                else:
                    is_idle = True
                    for _ in range(_SPINS):  # another task of the test may do something about it
                        await asyncio.sleep(0)
            return True
        finally:
            del self._limits[me]

    async def _go_on(self, condition: Callable[[], bool]) -> bool:
        async with self._lock:  # of several tasks that wait, one lets a thing happen at a time
            if condition():
                return True
            if not await self.core.happen():
                self._happened = 0
                return self.core.move_time(min(self._limits.values()))
            self._happened += 1
            if self._happened > MAX_HAPPENINGS:
                raise StuckError(
                    f"{MAX_HAPPENINGS} things have happened while time stood still: {self._why()}"
                )
            return True

    # ---- looking ----

    def run_ids(self) -> list[str]:
        """The runs, in the order in which they were started."""
        return list(self.core.store.backend.runs)

    def has_run(self, run_id: str) -> bool:
        """Whether there is such a run."""
        return run_id in self.core.store.backend.runs

    def status(self, run_id: str) -> str:
        """Where a run stands."""
        return self.core.store.backend.runs[run_id].status.value

    def events(self, run_id: str, start: int = 0) -> list[Event]:
        """The log of a run, from a position."""
        return [decode_event(event) for event in self.core.store.backend.runs[run_id].log[start:]]

    def log_length(self, run_id: str) -> int:
        """How many events the log of a run has."""
        return len(self.core.store.backend.runs[run_id].log)

    def stream_length(self, run_id: str, name: str) -> int:
        """How many positions a stream has; its end counts as one more."""
        run = self.core.store.backend.runs[run_id]
        records = run.streams.records(has_ended=run.status.is_terminal)
        known = [record.length + record.closed for record in records if record.name == name]
        return known[0] if known else int(run.status.is_terminal)

    def open_hooks(self, run_id: str) -> list[str]:
        """The tokens of a run's open hooks."""
        hooks = self.core.store.backend.runs[run_id].hooks
        return [token for token, hook in hooks.items() if hook is not None]

    def _why(self) -> str:
        """Say what the runs that have not ended wait for."""
        runs = self.core.store.backend.runs.values()
        reasons = [self._why_run(run.start.run_id) for run in runs if not run.status.is_terminal]
        return "; ".join(reasons) or "no run is open"

    def _why_run(self, run_id: str) -> str:
        if self.status(run_id) == RunStatus.PAUSED:
            paused = [e for e in self.events(run_id) if e.type is EventType.RUN_PAUSED]
            return f"{run_id} is paused ({paused[-1].meta.get('reason', '') if paused else ''})"
        hooks = self.open_hooks(run_id)
        if hooks:
            return f"{run_id} waits for the hook {', '.join(map(repr, hooks))}"
        if self.core.next_ms() is not None and not self.is_automatic:
            return f"{run_id} waits, and time stands still (advance it)"
        return f"{run_id} waits for something that nobody will do"


def open_engine(settings: EngineSettings) -> Driver:
    """Return an engine for `fluvial.testing`."""
    return Driver(settings)
