"""The dispatcher: owns partitions, and drives each one's sequencer.

Stopping is a sequence: refuse (no new messages are read), drain (invocations under way may finish,
within a deadline), then release the leases so that the next owner need not wait for their end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from fluvial.ids import partition_of
from fluvial_gateway.activity import Activity
from fluvial_gateway.admission import MAX_IN_FLIGHT, Admission
from fluvial_gateway.invocation_ids import InvocationIds
from fluvial_gateway.invocations import Invocations
from fluvial_gateway.observing import DispatchObserver
from fluvial_gateway.ownership import Ownership
from fluvial_gateway.store_clock import StoreClock, boottime
from fluvial_gateway.waiting import Waiters
from fluvial_queue.contract import (
    Bell,
    Lease,
    OutcomeUnknownError,
    Pulse,
    Store,
    StoreUnavailableError,
)

LEASE_MS: Final = 30_000
RENEW_SECONDS: Final = 10.0
MARGIN_SECONDS: Final = 5.0  # nothing is dispatched so long before a lease's end
DRAIN_SECONDS: Final = 10.0

logger = logging.getLogger(__name__)


class Dispatcher:
    """Message → invocation → commit, for every partition that this gateway owns."""

    def __init__(
        self,
        store: Store,
        invocations: Invocations,
        observer: DispatchObserver,
        *,
        owner: str,
        on_bell: Callable[[Bell], None] | None = None,
        ownership_changed: Callable[[], None] = lambda: None,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        """`on_bell`: hears every bell of the store too.

        `ownership_changed`: is called when partitions were acquired or lost.
        `max_in_flight`: as many jobs of one deployment are with the router."""
        self.store = store
        self.invocations = invocations
        self.observer = observer
        self.clock = StoreClock(0)
        self.invocation_ids = InvocationIds()
        self._owner = owner
        self._on_bell = on_bell
        self._ownership_changed = ownership_changed
        self._owned: dict[int, Ownership] = {}
        self._admission = Admission(limit=max_in_flight)
        self._waiters = Waiters(store)
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed_at = float("-inf")  # boottime of the last round of renewals
        self._stopping = asyncio.Event()
        self._progress = asyncio.Event()

    async def start(self) -> None:
        """Acquire the partitions and begin with what is outstanding.

        Raises:
            StoreUnavailableError: the store cannot be reached.
        """
        self.clock.synchronise(await self.store.now_ms())
        await self._acquire_free()
        self._renewed_at = boottime()
        self.spawn(self._keep_leases())
        self.spawn(self._listen())

    async def stop(self, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Drain, give the leases up, end all tasks."""
        self._stopping.set()
        for owned in self._owned.values():
            owned.hold()
        try:
            async with asyncio.timeout(drain_seconds):
                while any(owned.is_busy for owned in self._owned.values()):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            logger.warning("drain deadline passed", extra={"seconds": drain_seconds})
        given_up = [(owned, owned.has_rested) for owned in self._owned.values()]
        self._owned.clear()
        for owned, _ in given_up:
            owned.close()
        try:
            async with asyncio.timeout(drain_seconds):
                for owned, rested in given_up:
                    await self.store.release(owned.lease, rested=rested)
        except (OutcomeUnknownError, StoreUnavailableError, TimeoutError) as error:
            logger.warning("leases not released", extra={"error": str(error)})
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def partitions_owned(self) -> list[int]:
        """The partitions that this gateway owns."""
        return list(self._owned)

    @property
    def is_ready(self) -> bool:
        """Whether the leases were renewed in time; how many there are depends on the neighbours."""
        fresh = boottime() - self._renewed_at < LEASE_MS / 1000
        return fresh and not self._stopping.is_set()

    def activities(self, run_id: str) -> list[Activity] | None:
        """Return the invocations of a run that are asked for or under way; None: this gateway does
        not own the run's partition."""
        owned = self._owned.get(partition_of(run_id))
        return None if owned is None else owned.activities(run_id)

    def poke(self, partition: int) -> None:
        """Something was added to a partition: look now, if it is ours."""
        owned = self._owned.get(partition)
        if owned is not None and not self._stopping.is_set():
            owned.read()

    def _expect_timer(self, partition: int, due_ms: int) -> None:
        owned = self._owned.get(partition)
        if owned is not None and not self._stopping.is_set():
            owned.expect_timer(due_ms)

    async def wait_for_events(self, run_id: str, position: int, seconds: float) -> None:
        """Return when the run's log may be longer than `position`, the run has ended or is gone,
        or the time is up."""
        await self._waiters.wait_for_events(run_id, position, seconds)

    async def wait_for_end(self, run_id: str, seconds: float) -> None:
        """Return when the run has ended or is gone, or the time is up."""
        await self._waiters.wait_for_end(run_id, seconds)

    async def wait_for_start(self, run_id: str, seconds: float) -> None:
        """Return when there is such a run, which has begun if it is new, or the time is up."""
        await self._waiters.wait_for_start(run_id, seconds)

    # ---- Surroundings of a partition ----

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def wake(self, run_id: str) -> None:
        self._waiters.wake(run_id)

    def progressed(self) -> None:
        self._progress.set()

    def lose(self, lease: Lease) -> None:
        owned = self._owned.get(lease.partition)
        if owned is not None and owned.lease == lease:
            logger.warning("lease lost", extra={"partition": lease.partition})
            del self._owned[lease.partition]
            owned.close()
            self._ownership_changed()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a dispatcher task failed", exc_info=error)

    # ---- leases ----

    async def _keep_leases(self) -> None:
        while True:
            try:
                await asyncio.wait_for(self._stopping.wait(), RENEW_SECONDS)
            except TimeoutError:
                pass
            else:
                return
            try:
                await self._renew()
                await self._acquire_free()
            except (OutcomeUnknownError, StoreUnavailableError) as error:
                logger.warning("leases not renewed", extra={"error": str(error)})

    async def _renew(self) -> None:
        owned = list(self._owned.values())
        sent = boottime()
        pulses = await self.store.renew([o.lease for o in owned], ttl_ms=LEASE_MS)
        self._renewed_at = sent
        for ownership, pulse in zip(owned, pulses, strict=True):
            self._take_pulse(ownership, pulse, sent)

    def _take_pulse(self, owned: Ownership, pulse: Pulse, sent: float) -> None:
        if not pulse.held:
            self.lose(owned.lease)
            return
        valid_until = sent + LEASE_MS / 1000 - MARGIN_SECONDS
        owned.renewed(valid_until, pulse.next_timer_ms, pulse.last_message_id)

    async def _acquire_free(self) -> None:
        """Acquire the partitions that nobody holds."""
        missing = [p for p in range(self.store.partitions) if p not in self._owned]
        sent = boottime()
        leases = await asyncio.gather(
            *(self.store.acquire(p, owner=self._owner, ttl_ms=LEASE_MS) for p in missing)
        )
        fresh: list[Ownership] = []
        for lease in leases:
            if lease is not None and not self._stopping.is_set():
                owned = Ownership(lease, self, admission=self._admission)
                owned.valid_until = sent + LEASE_MS / 1000 - MARGIN_SECONDS
                self._owned[lease.partition] = owned
                fresh.append(owned)
        if fresh:
            sent = boottime()
            pulses = await self.store.renew([o.lease for o in fresh], ttl_ms=LEASE_MS)
            for ownership, pulse in zip(fresh, pulses, strict=True):
                self._take_pulse(ownership, pulse, sent)
            self._ownership_changed()

    async def _listen(self) -> None:
        async for bell in self.store.bells():
            if bell.kind == "messages":
                self.poke(bell.partition)
            elif bell.kind == "timer":
                self._expect_timer(bell.partition, bell.due_ms)
            elif bell.kind == "finished":
                self._waiters.wake(bell.run_id)
            elif bell.kind == "lost":
                self._waiters.wake_all()
                for partition in list(self._owned):
                    self.poke(partition)
                    self._expect_timer(partition, 0)
            if self._on_bell is not None:
                self._on_bell(bell)
