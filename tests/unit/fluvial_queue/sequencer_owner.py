"""A dispatcher of the sequencer's worlds: what its sequencer has asked for, and in what order it
hears of it. Loads and windows take several steps, between which anything can happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fluvial.events import Event, EventType, decode_event
from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    RunStatus,
    StoredMessage,
)
from fluvial_queue.jobs import Job
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, decode_message
from fluvial_queue.sequencer import Sequencer
from fluvial_queue.views import RunView

LOST_LIMIT = 2  # executions cut off before a run is paused: few, so that it happens


@dataclass(slots=True)
class Load:
    """A run being read: its messages page by page, then its record and log."""

    run_id: str
    after: str = ""
    stored: list[StoredMessage] | None = None  # None: only the record and the log are wanted
    has_messages: bool = False


@dataclass(eq=False)
class Owner:
    """One dispatcher: a sequencer and what it has asked for."""

    store: MemoryStore
    lease: Lease
    clock: Callable[[], int]
    started_by: dict[str, int]  # of all owners: message id → the newest epoch that dispatched it
    begun: set[tuple[str, int, int]]  # of all owners: attempts of at-most-once steps, dispatched
    sequencer: Sequencer = field(init=False)
    commits: list[CommitEntry] = field(default_factory=list[CommitEntry])
    jobs: list[Job] = field(default_factory=list[Job])
    loads: list[Load] = field(default_factory=list[Load])
    claims: list[tuple[RunView, Sequence[str], Job]] = field(
        default_factory=list[tuple[RunView, Sequence[str], Job]]
    )
    effects: list[tuple[RunView, str, Message]] = field(
        default_factory=list[tuple[RunView, str, Message]]
    )
    windows: list[list[StoredMessage]] = field(default_factory=list[list[StoredMessage]])
    cursor: str = ""
    done: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    recorded_events: list[EventType] = field(default_factory=list[EventType])

    def __post_init__(self) -> None:
        self.sequencer = Sequencer(self.lease, self)

    # ---- Port ----

    def now_ms(self) -> int:
        return self.clock()

    def dispatch(self, job: Job) -> None:
        assert job.view.status is not RunStatus.PAUSED, "a paused run goes on"
        self._check_deployment(job)
        if job.kind == "step":
            self._check_start(job)
        job.lost_limit = LOST_LIMIT
        self.jobs.append(job)

    def cancel(self, job: Job, reason: str) -> None:
        if job in self.jobs:
            self.jobs.remove(job)

    def load(self, run_id: str, *, again: bool) -> None:
        self.loads.append(Load(run_id, stored=[] if again else None))

    def claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        self.claims.append((view, tokens, job))

    def carry_out(self, view: RunView, message_id: str, effect: Message) -> None:
        self.effects.append((view, message_id, effect))

    def commit(self, entry: CommitEntry) -> None:
        assert not any(other.run_id == entry.run_id for other in self.commits)
        self.commits.append(entry)

    def recorded(self, view: RunView, event: Event) -> None:
        self.recorded_events.append(event.type)

    def _check_start(self, job: Job) -> None:
        """A step never starts twice at a time, nor after its result was committed, and what an
        earlier owner may have started does not start again without a record."""
        key = (job.view.run_id, job.step_id)
        assert key not in self.done, "a finished step starts again"
        under_way = [(j.view.run_id, j.step_id) for j in self.jobs if j.kind == "step"]
        assert key not in under_way, "a step starts twice at a time"
        earlier = self.started_by.get(job.message_id, 0)
        assert earlier == 0 or earlier >= self.lease.epoch, "starts again without a record"
        self.started_by[job.message_id] = max(earlier, self.lease.epoch)
        if job.view.steps[job.step_id].is_at_most_once:
            assert attempt_of(job) not in self.begun, "an at-most-once attempt starts again"
            self.begun.add(attempt_of(job))

    def _check_deployment(self, job: Job) -> None:
        """A job goes to the deployment where its run is, as far as its owner can know."""
        backend = self.store.backend
        if backend.partition(self.lease.partition).epoch == self.lease.epoch:
            assert job.deployment == backend.runs[job.view.run_id].record().deployment

    # ---- what the world lets happen ----

    async def request_window(self, limit: int) -> None:
        """Read the next messages; they are offered later."""
        window = await self.store.window(self.lease, after=self.cursor, limit=limit)
        if window:
            self.cursor = window[-1].id
            self.windows.append(window)

    def take_window(self) -> None:
        """Hear what was read earlier."""
        for message in self.windows.pop(0):
            self.sequencer.offer(message)

    async def go_on_loading(self, load: Load, limit: int) -> None:
        """Take one step of a load."""
        if load.stored is not None and not load.has_messages:
            window = await self.store.window(self.lease, after=load.after, limit=limit)
            if window is None:
                self.sequencer.abandon()
                self.loads.clear()
                return
            load.stored += [m for m in window if decode_message(m.body).run_id == load.run_id]
            load.after = window[-1].id if window else load.after
            load.has_messages = len(window) < limit
            return
        self.loads.remove(load)
        record = await self.store.read_run(load.run_id)
        events = await self.store.read_events(load.run_id, limit=10_000)
        self.sequencer.loaded(load.run_id, record, events, load.stored)

    async def apply(self, entry: CommitEntry) -> CommitAnswer:
        """Have the store apply an entry; nobody hears of it yet."""
        answer = (await self.store.commit(self.lease, [entry])).answers[0]
        if answer.outcome is CommitOutcome.OK:
            ended = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)
            events = [decode_event(event) for event in entry.events]
            self.done |= {(entry.run_id, e.id) for e in events if e.type in ended}
        return answer

    async def carry_out_next(self, effect: tuple[RunView, str, Message]) -> bool:
        """Have an effect happen in the store; nobody hears of it yet. False: it is too early."""
        view, _, message = effect
        try:
            problem = await carry_out(self.store, view.app, message, self.clock())
        except TooEarlyError:
            return False
        assert problem == "", problem
        return True

    async def settle_claim(self) -> None:
        """Claim what was asked for first."""
        view, tokens, job = self.claims.pop(0)
        holders = {t: await self.store.claim_token(view.app, t, view.run_id) for t in tokens}
        self.sequencer.claimed(job, {t: h for t, h in holders.items() if h != view.run_id})


def attempt_of(job: Job) -> tuple[str, int, int]:
    """Return which attempt of which run's step a job executes."""
    return job.view.run_id, job.step_id, job.attempt
