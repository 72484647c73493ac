"""Steps under way: each is a task that runs user code, on the test's event loop.

What a step waits for decides whether the others wait for it. A step that waits for the kit (for
virtual time, for another run) is *waiting*: nothing will happen to it until something else does. A
step that waits for anything else is *busy*: it may go on at any moment, by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from fluvial.invocations import Answer
from fluvial_queue.jobs import Job
from fluvial_queue.kit.owner import Owner

_SPINS: Final = 20  # turns of the event loop that a body gets before a clock is looked at

_current: ContextVar[Flight | None] = ContextVar("fluvial_kit_flight", default=None)


@dataclass(slots=True, eq=False)
class Flight:
    """A step under way."""

    owner: Owner
    job: Job
    instance: int
    invocation: str
    number: int = 0  # counts in the order in which they begin
    is_wanted: bool = True  # somebody waits for its answer
    progress: bytes = b""  # what its body has reported last, sealed
    task: asyncio.Task[Answer] | None = None
    waiters: list[_Waiter] = field(default_factory=list["_Waiter"])


@dataclass(slots=True, eq=False)
class _Waiter:
    """What a step waits for the kit for."""

    condition: Callable[[], bool]
    at_ms: int | None  # when time alone makes the condition true
    future: asyncio.Future[None]
    is_waking: bool = False


def current_flight() -> Flight | None:
    """Return the step out of which this is called; None in a test's own code."""
    return _current.get()


async def _execute(flight: Flight, work: Coroutine[Any, Any, Answer]) -> Answer:
    _current.set(flight)
    return await work


class Flights:
    """All steps under way."""

    def __init__(self) -> None:
        self._count = 0
        self._flights: dict[Flight, None] = {}
        self._waiters: list[_Waiter] = []  # of all flights
        self._landed: list[tuple[Flight, Answer]] = []
        self._busy = 0  # flights that wait for nothing, or not for the kit
        self._waking = 0  # waiters that are about to go on
        self._has_stirred = False  # since busy steps were last waited for
        self._stirred: asyncio.Event | None = None
        self._failure: BaseException | None = None

    # ---- running ----

    def begin(self, flight: Flight, work: Coroutine[Any, Any, Answer]) -> None:
        """Run a step in a task."""
        self._count += 1
        flight.number = self._count
        self._flights[flight] = None
        self._busy += 1
        self._stir()
        flight.task = asyncio.create_task(_execute(flight, work))
        flight.task.add_done_callback(partial(self._ended, flight, work))

    def _ended(
        self, flight: Flight, work: Coroutine[Any, Any, Answer], task: asyncio.Task[Answer]
    ) -> None:
        work.close()  # a task that is cancelled before it has begun does not touch it
        del self._flights[flight]
        self._busy -= 1
        self._stir()
        if task.cancelled():
            answer = Answer(outcome="cancelled")
        elif (error := task.exception()) is not None:
            self._failure = error
            return
        else:
            answer = task.result()
        self._landed.append((flight, answer))

    def take_landed(self) -> list[tuple[Flight, Answer]]:
        """Return the steps that have ended since, in the order in which they began."""
        landed, self._landed = self._landed, []
        return sorted(
            (item for item in landed if item[0].is_wanted), key=lambda item: item[0].number
        )

    def stop(self, unwanted: Callable[[Flight], bool]) -> list[Flight]:
        """Cancel steps and return them; their answers are for nobody."""
        known = [*self._flights, *(flight for flight, _ in self._landed)]
        stopped = [flight for flight in known if flight.is_wanted and unwanted(flight)]
        for flight in stopped:
            flight.is_wanted = False
            for waiter in flight.waiters:
                self._wake(waiter)
            if flight.task is not None:
                flight.task.cancel()
        return stopped

    def under_way(self) -> list[Flight]:
        """Return the steps whose answer somebody waits for."""
        return [flight for flight in self._flights if flight.is_wanted]

    async def close(self) -> None:
        """Cancel everything, and wait for the end of it."""
        self.stop(lambda _: True)
        tasks = [flight.task for flight in self._flights if flight.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- waiting for the kit ----

    async def wait(
        self, flight: Flight, condition: Callable[[], bool], at_ms: int | None = None
    ) -> None:
        """In a step: wait until something is so."""
        if condition():
            return
        waiter = _Waiter(condition, at_ms, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        flight.waiters.append(waiter)
        self._busy -= len(flight.waiters) == 1
        self._stir()
        try:
            await waiter.future
        finally:
            self._waiters.remove(waiter)
            flight.waiters.remove(waiter)
            self._waking -= waiter.is_waking
            self._busy += not flight.waiters

    def look(self) -> None:
        """Wake the steps that wait for what is so now."""
        for waiter in self._waiters:
            if not waiter.is_waking and waiter.condition():
                self._wake(waiter)
                waiter.future.set_result(None)

    def next_ms(self) -> int | None:
        """Return when time alone will wake somebody."""
        return min((w.at_ms for w in self._waiters if w.at_ms is not None), default=None)

    def _wake(self, waiter: _Waiter) -> None:
        if not waiter.is_waking:
            waiter.is_waking = True
            self._waking += 1
            self._stir()

    # ---- waiting for steps ----

    @property
    def are_busy(self) -> bool:
        """Whether a step may go on by itself."""
        return self._busy + self._waking > 0

    @property
    def have_stirred(self) -> bool:
        """Whether a step has begun, ended or come to wait since busy steps were waited for."""
        return self._has_stirred

    async def rest(self, seconds: float) -> None:
        """Give busy steps time until all have come to rest; at most so many seconds after the last
        one has stirred."""
        for _ in range(_SPINS):
            if not self.are_busy:
                break
            await asyncio.sleep(0)
        if self.are_busy:
            await self._wait(seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    async def _wait(self, seconds: float) -> None:
        self._stirred = asyncio.Event()
        try:
            while self.are_busy:
                self._has_stirred = False
                async with asyncio.timeout(seconds):
                    await self._stirred.wait()
                self._stirred.clear()
        except TimeoutError:
            return
        finally:
            self._stirred = None

    def _stir(self) -> None:
        self._has_stirred = True
        if self._stirred is not None:
            self._stirred.set()
