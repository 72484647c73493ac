"""One owner of a partition: its sequencer, and what that has asked for.

Nothing happens by itself: the engine picks a piece of work and has it done. So a load, a window or
a reply can be late by any number of other things.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from fluvial.events import Event
from fluvial_queue.carrying import TooEarlyError, carry_out
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    Store,
    StoredMessage,
)
from fluvial_queue.jobs import Job
from fluvial_queue.kit.work import (
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
from fluvial_queue.messages import Message, decode_message
from fluvial_queue.sequencer import Sequencer
from fluvial_queue.views import RunView

LEASE_MS: Final = 1_000 * 365 * 24 * 3600 * 1000  # virtual time may jump by years
_EVENTS: Final = 10_000  # read at a time


class Watcher(Protocol):
    """Is told what owners do; a test's checks."""

    def dispatched(self, owner: Owner, job: Job) -> None: ...

    def committed(self, owner: Owner, entry: CommitEntry, answer: CommitAnswer) -> None: ...

    def recorded(self, owner: Owner, view: RunView, event: Event) -> None: ...


class Surroundings(Protocol):
    """What an owner needs of the engine."""

    @property
    def store(self) -> Store: ...

    @property
    def watchers(self) -> Sequence[Watcher]: ...

    def now_ms(self) -> int: ...

    def page(self) -> int:
        """How many messages to read at a time."""
        ...

    def next_number(self) -> int:
        """Return a number above all before."""
        ...

    def stop(self, owner: Owner, job: Job) -> None:
        """Cancel an invocation, and drop its answer."""
        ...

    def deposed(self, owner: Owner) -> None:
        """The lease is somebody else's."""
        ...


class Owner:
    """An owner for as long as its lease is held, and until it learns that it is not."""

    def __init__(self, lease: Lease, around: Surroundings) -> None:
        self.lease = lease
        self.sequencer = Sequencer(lease, self)
        self.work: list[Work] = []
        self.next_timer_ms: int | None = None
        self._around = around
        self._cursor = ""
        self._windows: deque[Sequence[StoredMessage]] = deque()  # read, and not heard of yet

    def __str__(self) -> str:
        return f"owner {self.lease.epoch}"

    # ---- Port of the sequencer ----

    def now_ms(self) -> int:
        return self._around.now_ms()

    def dispatch(self, job: Job) -> None:
        for watcher in self._around.watchers:
            watcher.dispatched(self, job)
        self.ask(Invoking(job))

    def cancel(self, job: Job, reason: str) -> None:
        self._around.stop(self, job)

    def load(self, run_id: str, *, again: bool) -> None:
        self.ask(Loading(run_id, wants_messages=again))

    def claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        self.ask(Claiming(view, tokens, job))

    def carry_out(self, view: RunView, message_id: str, effect: Message) -> None:
        self.ask(Carrying(view, message_id, effect))

    def commit(self, entry: CommitEntry) -> None:
        self.ask(Committing(entry))

    def recorded(self, view: RunView, event: Event) -> None:
        for watcher in self._around.watchers:
            watcher.recorded(self, view, event)

    # ---- what the engine lets happen ----

    async def begin(self) -> None:
        """Find out what there is to do."""
        self.ask(Reading())
        await self.look_at_timers()

    def notice(self) -> None:
        """Something was added to the partition."""
        if not any(isinstance(work, Reading) for work in self.work):
            self.ask(Reading())

    def check_timers(self) -> None:
        """See whether a timer is due."""
        if self.next_timer_ms is None or self.next_timer_ms > self._around.now_ms():
            return
        if not any(isinstance(work, Firing) for work in self.work):
            self.ask(Firing())

    async def look_at_timers(self) -> None:
        """Ask the store when the next timer is due."""
        (pulse,) = await self._around.store.renew([self.lease], ttl_ms=LEASE_MS)
        self.next_timer_ms = pulse.next_timer_ms if pulse.held else None

    async def read(self) -> None:
        """Read a window of messages; they are heard of later."""
        limit = self._around.page()
        window = await self._around.store.window(self.lease, after=self._cursor, limit=limit)
        if window is None:
            self._around.deposed(self)
        elif window:
            self._cursor = window[-1].id
            self._windows.append(window)
            self.ask(Offering())
            if len(window) == limit:
                self.ask(Reading())

    def offer_next(self) -> None:
        """Hear of the window that was read first."""
        self._offer(self._windows.popleft())

    def hear_what_was_read(self) -> None:
        """Hear of all windows that were read: their answers come before that of a later commit."""
        self.drop(lambda work: isinstance(work, Offering))
        while self._windows:
            self.offer_next()

    def _offer(self, messages: Sequence[StoredMessage]) -> None:
        for message in messages:
            self.sequencer.offer(message)

    async def fire(self) -> None:
        """Turn due timers into messages, and hear of them."""
        fired = await self._around.store.fire_timers(self.lease, limit=self._around.page())
        if fired is None:
            self._around.deposed(self)
            return
        self.next_timer_ms = fired.next_timer_ms
        self._offer(fired.messages)

    async def load_on(self, load: Loading) -> None:
        """Take one step of a load."""
        store = self._around.store
        if load.wants_messages and not load.has_messages:
            limit = self._around.page()
            window = await store.window(self.lease, after=load.after, limit=limit)
            if window is None:
                self._around.deposed(self)
                return
            load.stored += [m for m in window if decode_message(m.body).run_id == load.run_id]
            load.after = window[-1].id if window else load.after
            load.has_messages = len(window) < limit
            self.ask(load)
            return
        record = await store.read_run(load.run_id)
        events = [] if record is None else await self.read_log(load.run_id, record.events)
        stored = load.stored if load.wants_messages else None
        self.sequencer.loaded(load.run_id, record, events, stored)

    async def read_log(self, run_id: str, length: int) -> list[bytes]:
        """Return the first `length` events of a run's log."""
        events: list[bytes] = []
        while len(events) < length:
            limit = min(_EVENTS, length - len(events))
            batch = await self._around.store.read_events(run_id, start=len(events), limit=limit)
            if not batch:
                break
            events += batch
        return events

    async def settle_claim(self, claim: Claiming) -> None:
        """Claim tokens; those that another run holds are conflicts."""
        app, run_id = claim.view.app, claim.view.run_id
        holders = {t: await self._around.store.claim_token(app, t, run_id) for t in claim.tokens}
        self.sequencer.claimed(claim.job, {t: h for t, h in holders.items() if h != run_id})

    async def carry(self, work: Carrying) -> None:
        """Do what an effect asks for in another run."""
        run_id, message_id = work.view.run_id, work.message_id
        try:
            problem = await carry_out(
                self._around.store, work.view.app, work.effect, self._around.now_ms()
            )
        except TooEarlyError as error:
            if self.work:  # an earlier effect may be among the messages that are still to be read
                self.sequencer.too_early(run_id, message_id)
                return
            problem = str(error)
        self.sequencer.carried_out(run_id, message_id, problem)

    async def apply(self, entry: CommitEntry) -> CommitAnswer:
        """Have the store apply a commit; nobody hears of it yet."""
        answer = (await self._around.store.commit(self.lease, [entry])).answers[0]
        for watcher in self._around.watchers:
            watcher.committed(self, entry, answer)
        return answer

    async def take(self, entry: CommitEntry, answer: CommitAnswer) -> None:
        """Hear of a commit's answer."""
        if answer.outcome is CommitOutcome.EPOCH:
            self._around.deposed(self)
            return
        await self.look_at_timers()
        self.sequencer.committed(entry, answer)

    def ask(self, work: Work) -> None:
        """Add something that can happen from now on."""
        work.number = self._around.next_number()
        self.work.append(work)

    def drop(self, unwanted: Callable[[Work], bool]) -> None:
        """Forget work."""
        self.work = [work for work in self.work if not unwanted(work)]
