"""A world in which sequencers run: seeded, single-threaded, with every fault of the model.

The store is the real `MemoryStore`. Workflows are pure functions from the inputs seen so far to
the outputs that the last one causes, as in the model of the hand-off. A scheduler picks among
everything that could happen next; time moves only when it says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fluvial.events import INPUTS, OUTPUTS, Event, EventType, decode_event
from fluvial.ids import partition_of
from fluvial.invocations import Answer
from fluvial_queue.contract import (
    CommitAnswer,
    CommitEntry,
    CommitOutcome,
    Lease,
    SendOutcome,
    StartRun,
    Store,
)
from fluvial_queue.jobs import Job
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.sequencer import Sequencer
from fluvial_queue.views import RunView

Program = Callable[[Sequence[Event]], list[Event]]
RUN = "run_00" + "0" * 24
TTL_MS = 1_000


@dataclass
class Owner:
    """One dispatcher: a sequencer and what it has asked for."""

    world: World
    lease: Lease
    sequencer: Sequencer = field(init=False)
    commits: list[CommitEntry] = field(default_factory=list[CommitEntry])
    jobs: list[Job] = field(default_factory=list[Job])
    loads: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    claims: list[tuple[RunView, Sequence[str], Job]] = field(
        default_factory=list[tuple[RunView, Sequence[str], Job]]
    )

    def __post_init__(self) -> None:
        self.sequencer = Sequencer(self.lease, self)

    def now_ms(self) -> int:
        return self.world.now_ms

    def dispatch(self, job: Job) -> None:
        if job.kind == "step":
            self.world.check_start(self, job)
        self.jobs.append(job)

    def cancel(self, job: Job, reason: str) -> None:
        if job in self.jobs:
            self.jobs.remove(job)

    def load(self, run_id: str, *, again: bool) -> None:
        self.loads.append((run_id, again))

    def claim(self, view: RunView, tokens: Sequence[str], job: Job) -> None:
        self.claims.append((view, tokens, job))

    def commit(self, entry: CommitEntry) -> None:
        self.commits.append(entry)

    def recorded(self, view: RunView, event: Event) -> None:
        self.world.recorded.append(event.type)


class World:
    """One run, its partition, up to two owners, two instances, and a seeded scheduler."""

    def __init__(
        self, store: Store, program: Program, seed: int, tick: Callable[[int], None], faults: int
    ) -> None:
        self.store = store
        self.program = program
        self.random = random.Random(seed)
        self.now_ms = 1_000_000
        self.tick = tick
        self.faults = faults
        self.owner: Owner | None = None
        self.stale: list[Owner] = []
        self.live: list[dict[bytes, list[bytes]]] = [{}, {}]
        self.recorded: list[EventType] = []
        self.done_at: dict[int, set[int]] = {}  # epoch → steps whose result that owner knows
        self.resumed: SendOutcome | None = None
        self.hits: dict[str, int] = {}
        self.stop_with: MessageKind | None = None  # a request to end the run, at some moment

    # ---- the scheduler ----

    async def run(self, *, steps: int = 3_000) -> None:
        """Play until the run has ended and nothing is outstanding."""
        await self.store.start(
            StartRun(run_id=RUN, app="app", workflow="w", deployment="dpl", input=b"in")
        )
        for _ in range(steps):
            if await self._is_over():
                return
            await self.random.choice(await self._choices())()
        raise AssertionError(f"not finished: {self.describe(await self.events())}")

    async def events(self) -> list[Event]:
        return [decode_event(e) for e in await self.store.read_events(RUN, limit=10_000)]

    @staticmethod
    def describe(events: Sequence[Event]) -> list[str]:
        return [f"{event.type.name}:{event.id}" for event in events]

    async def _is_over(self) -> bool:
        record = await self.store.read_run(RUN)
        if record is None or not record.status.is_terminal:
            return False
        return await self.store.depth([partition_of(RUN)]) == (0, 0)

    async def _choices(self) -> list[Callable[[], Awaitable[None]]]:
        if self.owner is None:
            return [self._acquire]
        choices: list[Callable[[], Awaitable[None]]] = [self._read_window, self._pass_time]
        for owner in (self.owner, *self.stale):
            if owner.loads:
                choices += [partial(self._load, owner)] * 3
            if owner.commits:
                choices += [partial(self._commit, owner)] * 3
            if owner.jobs:
                choices += [partial(self._answer, owner)] * 3
            if owner.claims:
                choices += [partial(self._claim, owner)] * 3
        choices.append(self._send_hook)
        if self.stop_with is not None:
            choices.append(self._stop)
        if self.faults > 0:
            choices += [self._lose_reply, self._crash_owner, self._steal, self._crash_instance]
            choices += [self._lose_answer]
        return choices

    def _hit(self, fault: str) -> None:
        self.faults -= 1
        self.hits[fault] = self.hits.get(fault, 0) + 1

    # ---- what owners do ----

    async def _acquire(self) -> None:
        lease = await self.store.acquire(partition_of(RUN), owner="o", ttl_ms=TTL_MS * 1000)
        assert lease is not None
        self.owner = Owner(self, lease)
        await self._read_window()

    async def _read_window(self) -> None:
        if self.owner is None:
            return
        messages = await self.store.window(self.owner.lease, after="", limit=100)
        for message in messages or ():
            self.owner.sequencer.offer(message)

    async def _load(self, owner: Owner) -> None:
        run_id, again = owner.loads.pop(0)
        stored = None
        if again:
            window = await self.store.window(owner.lease, after="", limit=100)
            if window is None:
                owner.sequencer.abandon()
                return
            stored = window
        record = await self.store.read_run(run_id)
        owner.sequencer.loaded(run_id, record, await self.store.read_events(run_id), stored)

    async def _commit(self, owner: Owner) -> None:
        entry = owner.commits.pop(0)
        answer = await self._apply(owner, entry)
        if answer.outcome is CommitOutcome.EPOCH:
            owner.sequencer.abandon()
            if owner in self.stale:
                self.stale.remove(owner)
            return
        if answer.outcome is CommitOutcome.OK:
            assert owner is self.owner, "a stale owner committed"
        owner.sequencer.committed(entry, answer)

    async def _apply(self, owner: Owner, entry: CommitEntry) -> CommitAnswer:
        answer = (await self.store.commit(owner.lease, [entry])).answers[0]
        if answer.outcome is CommitOutcome.OK:
            known = self.done_at.setdefault(owner.lease.epoch, set())
            ended = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)
            known |= {e.id for e in map(decode_event, entry.events) if e.type in ended}
        return answer

    async def _claim(self, owner: Owner) -> None:
        view, tokens, job = owner.claims.pop(0)
        holders = {t: await self.store.claim_token(view.app, t, view.run_id) for t in tokens}
        owner.sequencer.claimed(job, [t for t, h in holders.items() if h != view.run_id])

    def check_start(self, owner: Owner, job: Job) -> None:
        """A finished step never starts again at the owner that committed it."""
        assert job.step_id not in self.done_at.get(owner.lease.epoch, set())

    # ---- what instances do ----

    async def _answer(self, owner: Owner) -> None:
        job = owner.jobs.pop(self.random.randrange(len(owner.jobs)))
        number, answer = await self._evaluate(job)
        owner.sequencer.answered(job, answer, f"ins{number}", {"invocation": "inv", "cpu_us": 1})

    async def _evaluate(self, job: Job) -> tuple[int, Answer]:
        number = self._pick(job.view.live_on)
        if job.kind == "turn":
            return number, await self._turn(number, job)
        return number, self._step(number, job)

    def _pick(self, prefer: str | None) -> int:
        if prefer is not None and self.random.random() < 0.8:
            return int(prefer[-1])
        return self.random.randrange(2)

    async def _turn(self, number: int, job: Job) -> Answer:
        live, view = self.live[number], job.view
        if job.replay:
            log = (await self.store.read_events(RUN, limit=10_000))[: job.base]
            inputs = [e for e in log if decode_event(e).type in INPUTS]
            seen, fresh = inputs[: view.consumed], inputs[view.consumed : job.inputs]
            recorded = [e for e in log if decode_event(e).type in OUTPUTS]
            again = [o.encode() for o in self._outputs([], seen)]
            assert [_shape(e) for e in again] == [_shape(e) for e in recorded], "replay differs"
        elif view.consumed == 0:
            seen, fresh = [], list(view.pending)
        elif view.turn_id in live:
            seen, fresh = live.pop(view.turn_id or b""), list(view.pending)
        else:
            return Answer(outcome="not_live")
        return self._advance(live, seen, fresh)

    def _advance(
        self, live: dict[bytes, list[bytes]], seen: list[bytes], fresh: list[bytes]
    ) -> Answer:
        outputs = self._outputs(seen, fresh)
        turn_id = self.random.randbytes(8)
        live[turn_id] = [*seen, *fresh]
        return Answer(outcome="ok", turn_id=turn_id, events=[o.encode() for o in outputs])

    def _outputs(self, seen: list[bytes], fresh: list[bytes]) -> list[Event]:
        inputs = [decode_event(e) for e in seen]
        outputs: list[Event] = []
        for encoded in fresh:
            inputs.append(decode_event(encoded))
            outputs += self.program(inputs)
            if outputs and 30 <= outputs[-1].type < 40:
                break
        return outputs

    def _step(self, number: int, job: Job) -> Answer:
        if self.random.random() < 0.15:
            meta: dict[str, Any] = {"attempt": job.attempt, "delay_ms": 50, "reason": "error"}
            end = Event(EventType.STEP_RETRYING, self.now_ms, job.step_id, b"e", meta)
            return Answer(outcome="ok", events=[end.encode()])
        end = Event(EventType.STEP_COMPLETED, self.now_ms, job.step_id, b"r", {})
        live = self.live[number]
        if job.carry is None or job.carry not in live:
            return Answer(outcome="ok", events=[end.encode()])
        answer = self._advance(live, live.pop(job.carry), [end.encode()])
        events = [end.encode(), *answer.events]
        return Answer(outcome="ok", turn_id=answer.turn_id, events=events)

    # ---- the world ----

    async def _pass_time(self) -> None:
        self.now_ms += 40
        self.tick(self.now_ms)
        if self.owner is not None:
            fired = await self.store.fire_timers(self.owner.lease, limit=10)
            for message in fired.messages if fired is not None else ():
                self.owner.sequencer.offer(message)

    async def _send_hook(self) -> None:
        if self.resumed is SendOutcome.ACCEPTED:
            return
        meta = {"token": "token", "resume": "r1"}
        body = Message(MessageKind.HOOK, RUN, 0, 0, meta, b"payload").encode()
        self.resumed = await self.store.send(RUN, body, token="token", resume_id="r1")

    async def _stop(self) -> None:
        kind = self.stop_with
        if kind is not None and self.random.random() < 0.3:
            self.stop_with = None
            await self.store.send(RUN, Message(kind, RUN, meta={"reason": "test"}).encode())

    # ---- faults ----

    async def _lose_reply(self) -> None:
        """The commit is applied, its reply is lost: the owner repeats it unchanged."""
        if self.owner is not None and self.owner.commits:
            self._hit("reply lost")
            await self._apply(self.owner, self.owner.commits[0])

    async def _crash_owner(self) -> None:
        self._hit("owner crashed")
        self.owner = None

    async def _steal(self) -> None:
        if self.owner is not None:
            self._hit("lease stolen")
            self.stale.append(self.owner)
            self.owner = None

    async def _crash_instance(self) -> None:
        number = self.random.randrange(2)
        self._hit("instance crashed")
        self.live[number].clear()
        if self.owner is not None and self.owner.jobs:
            job = self.owner.jobs.pop()
            self.owner.sequencer.lost(job, "instance_died")

    async def _lose_answer(self) -> None:
        """The instance has evaluated it (its coroutine has advanced); nobody hears of it."""
        if self.owner is not None and self.owner.jobs:
            self._hit("answer lost")
            job = self.owner.jobs.pop()
            await self._evaluate(job)
            self.owner.sequencer.lost(job, "link_lost")


def _shape(encoded: bytes) -> tuple[EventType, int]:
    event = decode_event(encoded)
    return event.type, event.id


def play(world: World) -> list[Event]:
    """Run a world to its end and return the log."""

    async def main() -> list[Event]:
        await world.run()
        return await world.events()

    return asyncio.run(main())
