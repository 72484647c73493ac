"""The engine of the kit: real sequencers on a store in memory, in virtual time.

One thing happens at a time: a commit is applied, an answer is taken in, a run is read. What could
happen next is what the owners have asked for; `Decisions` picks among it. Time moves only when
nothing else can happen, or when a test says so.

Faults are things that happen too, between any two others: see `faults.py`.
"""

from __future__ import annotations

from typing import Final

from fluvial.invocations import Answer
from fluvial.testing.engines import Mode
from fluvial.testing.errors import StuckError
from fluvial_queue.bells import BellQueue
from fluvial_queue.contract import CommitOutcome
from fluvial_queue.jobs import Job
from fluvial_queue.kit.clock import VirtualClock
from fluvial_queue.kit.decisions import Decisions
from fluvial_queue.kit.faults import Faults
from fluvial_queue.kit.flights import Flight, Flights
from fluvial_queue.kit.history import History, entry_name, job_name
from fluvial_queue.kit.instances import Instances, instance_name
from fluvial_queue.kit.owner import LEASE_MS, Owner, Watcher
from fluvial_queue.kit.points import Points
from fluvial_queue.kit.work import (
    Answering,
    Carrying,
    Claiming,
    Committing,
    Firing,
    Invoking,
    Loading,
    Offering,
    Reading,
    Work,
)
from fluvial_queue.memory import MemoryStore
from fluvial_queue.requests import step_request, turn_request

GRACE_SECONDS: Final = 1.0  # how long busy steps hold up what else could happen
PATIENCE_SECONDS: Final = 60.0  # how long everything waits for a busy step
_PAGES: Final = (4096, 1, 2)  # messages read at a time
_RETENTION_MS: Final = 1_000 * 365 * 24 * 3600 * 1000  # a test's runs stay


class Engine:
    """Owners, instances and a store, and what happens to them."""

    def __init__(
        self,
        *,
        clock: VirtualClock,
        decisions: Decisions,
        mode: Mode = "live",
        partitions: int = 1,
        points: Points | None = None,
    ) -> None:
        self.clock = clock
        self.mode: Mode = mode
        self.store = MemoryStore(now_ms=clock, partitions=partitions, retention_ms=_RETENTION_MS)
        self.watchers: list[Watcher] = []
        self.history = History(clock)
        self.points = points or Points()
        self.faults = Faults(self)
        self.flights = Flights()
        self.owners: dict[int, Owner] = {}
        self.stale: list[Owner] = []  # they do not know yet that they are not owners any more
        self._decisions = decisions
        self._instances: Instances | None = None
        self._bells = BellQueue()
        self.store.backend.listeners.append(self._bells)
        self._next_instance = 0
        self._invocations = 0
        self._numbers = 0

    def host(self, instances: Instances) -> None:
        """Say what executes invocations."""
        self._instances = instances

    @property
    def instances(self) -> Instances:
        """What executes invocations."""
        if self._instances is None:
            raise RuntimeError("the engine has no instances yet")
        return self._instances

    async def acquire(self, partition: int) -> Owner:
        """Let an owner begin."""
        lease = await self.store.acquire(partition, owner="kit", ttl_ms=LEASE_MS)
        if lease is None:
            raise RuntimeError(f"partition {partition} is held by a stranger")
        owner = self.owners[partition] = Owner(lease, self)
        self.history.add(f"{owner}: owns partition {partition}")
        await owner.begin()
        return owner

    # ---- what can happen ----

    async def happen(self) -> bool:
        """Let one thing happen; False: nothing can unless time moves or somebody helps.

        Raises:
            StuckError: a step does not come to an end.
        """
        await self._look_around()
        if not self._is_invoking_next():
            if self.flights.are_busy:
                await self.flights.rest(GRACE_SECONDS)
            self._take_landed()
        count = sum(len(owner.work) for owner in self._all_owners())
        if count == 0:
            return await self._wait_for_steps()
        owner, index = self._pick(self._decisions.choose(count))
        await self._do(owner, owner.work.pop(index))
        self.flights.look()
        return True

    def move_time(self, limit_ms: float) -> bool:
        """Move on to the next moment at which something is due; not beyond `limit_ms`."""
        due_ms = self.next_ms()
        if due_ms is None or due_ms > limit_ms:
            return False
        self.clock.move_to(due_ms)
        self.flights.look()
        return True

    def next_ms(self) -> int | None:
        """Return when the next thing is due."""
        times = [owner.next_timer_ms for owner in self.owners.values()]
        return min((t for t in (*times, self.flights.next_ms()) if t is not None), default=None)

    async def _look_around(self) -> None:
        for partition in range(self.store.partitions):
            if partition not in self.owners:
                await self.acquire(partition)
        while (bell := self._bells.take()) is not None:
            owner = self.owners.get(bell.partition)
            if owner is not None:
                owner.notice()
                await owner.look_at_timers()
        for owner in self.owners.values():
            owner.check_timers()

    def _is_invoking_next(self) -> bool:
        """Whether a step is about to begin: steps that can run together do."""
        if not self._decisions.is_in_order or not any(o.work for o in self._all_owners()):
            return False
        owner, index = self._pick(0)
        return isinstance(owner.work[index], Invoking)

    def _pick(self, choice: int) -> tuple[Owner, int]:
        """Return whose work a choice means; 0 is the oldest."""
        owners = self._all_owners()
        if choice == 0:
            waiting = [owner for owner in owners if owner.work]
            return min(waiting, key=lambda owner: owner.work[0].number), 0
        for owner in owners:
            if choice < len(owner.work):
                return owner, choice
            choice -= len(owner.work)
        raise AssertionError("a choice beyond what there is")

    def _all_owners(self) -> list[Owner]:
        return [*self.owners.values(), *self.stale]

    async def _wait_for_steps(self) -> bool:
        if not self.flights.are_busy:
            return False
        await self.flights.rest(PATIENCE_SECONDS)
        if self.flights.have_stirred:
            return True
        names = sorted({job_name(flight.job) for flight in self.flights.under_way()})
        raise StuckError(
            f"nothing has happened for {PATIENCE_SECONDS:g} s of real time; still running:"
            f" {', '.join(names) or 'a step that was cancelled'}"
        )

    # ---- letting it happen ----

    async def _do(self, owner: Owner, work: Work) -> None:
        match work:
            case Reading():
                await owner.read()
            case Offering():
                owner.offer_next()
            case Firing():
                await owner.fire()
            case Loading():
                await owner.load_on(work)
            case Claiming():
                await owner.settle_claim(work)
            case Carrying():
                await owner.carry(work)
            case Committing():
                await self._commit(owner, work)
            case Invoking():
                await self._invoke(owner, work.job)
            case Answering():
                self._answer(owner, work)

    async def _commit(self, owner: Owner, work: Committing) -> None:
        owner.hear_what_was_read()
        answer = await owner.apply(work.entry)
        self.history.committed(owner, work.entry, answer)
        if answer.outcome is CommitOutcome.OK:
            match self.points.at("commit", lambda: entry_name(work.entry)):
                case "crash":
                    self.faults.crash()
                    return
                case "lost_reply":
                    self.history.add(f"{owner}: the reply is lost")
                    owner.work.insert(0, work)
                    return
                case _:
                    pass
        await owner.take(work.entry, answer)

    async def _invoke(self, owner: Owner, job: Job) -> None:
        fault = self.points.at("dispatch", lambda: job_name(job))
        if fault == "crash":
            self.faults.crash()
            return
        number = self._place(job)
        self.history.invoked(owner, job, number)
        if job.kind == "turn":
            await self._turn(owner, job, number)
        else:
            self._begin_step(owner, job, number)
        if fault == "duplicate":
            await self.faults.steal(owner.lease.partition)

    async def _turn(self, owner: Owner, job: Job, number: int) -> None:
        view = job.view
        if self.mode == "replay" and view.consumed:
            job.replay = True
        replays = job.replay
        events = await owner.read_log(view.run_id, job.base) if replays else list(view.pending)
        request = turn_request(job, events, self.clock.now_ms, partitions=self.store.partitions)
        answer = self.instances.turn(number, request)
        if self.mode == "evict":
            self.instances.forget(number, [view.run_id])
        self._arrive(owner, Answering(job, answer, number, ""))

    def _begin_step(self, owner: Owner, job: Job, number: int) -> None:
        if self.mode == "replay":
            job.carry = None
        self._invocations += 1
        flight = Flight(owner, job, number, f"inv_{self._invocations}")
        request = step_request(job, flight.invocation, self.clock.now_ms)
        self.flights.begin(flight, self.instances.step(number, request))

    def _take_landed(self) -> None:
        """Steps that have ended by now did so in the order in which they began."""
        for flight, answer in self.flights.take_landed():
            self._landed(flight, answer)

    def _landed(self, flight: Flight, answer: Answer) -> None:
        if self.mode == "evict":
            self.instances.forget(flight.instance, [flight.job.view.run_id])
        self._arrive(
            flight.owner, Answering(flight.job, answer, flight.instance, flight.invocation)
        )

    def _arrive(self, owner: Owner, work: Answering) -> None:
        if work.answer.outcome == "not_live":
            self.history.add(f"{instance_name(work.instance)}: asks for the log")
        owner.ask(work)

    def _answer(self, owner: Owner, work: Answering) -> None:
        match self.points.at("answer", lambda: job_name(work.job)):
            case "crash":
                self.faults.crash()
            case "lost_answer":
                self.faults.lose_answer(owner, work)
            case _:
                stamp: dict[str, object] = {
                    "invocation": work.invocation,
                    "instance": instance_name(work.instance),
                    "cpu_us": 0,
                }
                name = instance_name(work.instance)
                owner.sequencer.answered(work.job, work.answer, name, stamp)

    def _place(self, job: Job) -> int:
        """Choose an instance: that with the live coroutine, or perhaps another one."""
        count = self.instances.count
        preferred = job.view.live_on
        if preferred is not None and self._decisions.choose(5) < 4:
            return int(preferred.rpartition("_")[2])
        self._next_instance = (self._next_instance + 1) % count
        return self._next_instance

    # ---- Surroundings of an owner ----

    def now_ms(self) -> int:
        """The virtual time."""
        return self.clock.now_ms

    def page(self) -> int:
        """How many messages to read at a time."""
        return _PAGES[self._decisions.choose(len(_PAGES))]

    def next_number(self) -> int:
        """Return a number above all before."""
        self._numbers += 1
        return self._numbers

    def stop(self, owner: Owner, job: Job) -> None:
        """Cancel an invocation, and drop its answer."""
        owner.drop(lambda work: isinstance(work, Invoking | Answering) and work.job is job)
        self.flights.stop(lambda flight: flight.job is job)

    def deposed(self, owner: Owner) -> None:
        """An owner learns that it is none any more."""
        self.history.add(f"{owner}: learns that it is deposed")
        owner.sequencer.abandon()
        owner.work.clear()
        if owner in self.stale:
            self.stale.remove(owner)
        elif self.owners.get(owner.lease.partition) is owner:
            del self.owners[owner.lease.partition]
