"""Waiting for a run to move on: woken by the commit itself, a doorbell, or a slow sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fluvial_queue.contract import RunRecord, Store

SWEEP_SECONDS = 10.0  # how late a lost doorbell can make a waiter


class Waiters:
    """Who waits for which run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def wake(self, run_id: str) -> None:
        """Something happened to this run."""
        for event in self._waiting.get(run_id, ()):
            event.set()

    def wake_all(self) -> None:
        """Something may have happened to any run."""
        for run_id in self._waiting:
            self.wake(run_id)

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> None:
        """Return when the run's log may be longer than `position`, the run has ended or is gone,
        or the time is up."""
        await self._wait(
            run_id,
            seconds,
            lambda run: run is None or run.status.is_terminal or run.events > position,
        )

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Return when the run has ended or is gone, or the time is up."""
        await self._wait(run_id, seconds, lambda run: run is None or run.status.is_terminal)

    async def wait_for_start(self, run_id: str, seconds: float) -> None:
        """Return when there is such a run, which has begun if it is new, or the time is up."""
        await self._wait(run_id, seconds, lambda run: run is not None)

    async def _wait(
        self, run_id: str, seconds: float, is_over: Callable[[RunRecord | None], bool]
    ) -> None:
        event = asyncio.Event()
        waiting = self._waiting.setdefault(run_id, set())
        waiting.add(event)
        try:
            async with asyncio.timeout(seconds):
                while not is_over(await self._store.read_run(run_id)):
                    try:
                        await asyncio.wait_for(event.wait(), SWEEP_SECONDS)
                    except TimeoutError:
                        continue  # look anyway: a doorbell may have been lost
                    event.clear()
        except TimeoutError:
            return
        finally:
            waiting.discard(event)
            if not waiting and self._waiting.get(run_id) is waiting:
                del self._waiting[run_id]
