"""A world in which sequencers run: seeded, single-threaded, with every fault of the model.

The store is the real `MemoryStore`. A scheduler picks among everything that could happen next; time
moves only when it says so.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from fluvial.events import Event, EventType, decode_event
from fluvial.ids import partition_of
from fluvial.invocations import Answer
from fluvial_queue.contract import CommitOutcome, RunStatus, SendOutcome, StartRun
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.jobs import Job
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, MessageKind
from tests.unit.fluvial_queue.sequencer_instances import Instances
from tests.unit.fluvial_queue.sequencer_owner import Owner, attempt_of
from tests.unit.fluvial_queue.sequencer_programs import Program

TTL_MS = 1_000_000
MAX_STEPS = 6_000
Choice = Callable[[], Awaitable[None]]


class World:
    """Runs of one program in one partition, owners, two instances, and a seeded scheduler."""

    def __init__(self, program: Program, seed: int, *, faults: int, runs: int = 1) -> None:
        self.random = random.Random(seed)
        self.now_ms = 1_000_000
        self.store = MemoryStore(now_ms=lambda: self.now_ms)
        self.instances = Instances(program, self.random)
        self.run_ids = [f"run_00{number:024}" for number in range(runs)]
        self.faults = faults
        self._fault_rate = self.random.choice((0.02, 0.1, 0.3))
        self.owner: Owner | None = None
        self.stale: list[Owner] = []
        self.resumed: set[str] = set()  # runs whose hook has got its payload
        self.started_by: dict[str, int] = {}
        self.begun: set[tuple[str, int, int]] = set()
        self.tick_ms = 40
        self.reread_rate = self.random.choice((0.0, 0.2))
        self.hits: Counter[str] = Counter()
        self.stop_with: MessageKind | None = None  # a request to end the runs, at some moment
        self.nudges: tuple[
            MessageKind, ...
        ] = ()  # requests that come at any moment, again and again

    # ---- the scheduler ----

    async def run(self) -> None:
        """Play until every run has ended and nothing is outstanding."""
        await self.start()
        await self.run_to_the_end()

    async def start(self) -> None:
        """Start the runs."""
        for run_id in self.run_ids:
            await self.store.start(
                StartRun(
                    run_id=run_id,
                    app="app",
                    workflow="w",
                    deployment="dpl",
                    input=run_id.encode(),
                )
            )

    async def go_on_until(self, reached: Callable[[], bool]) -> None:
        """Play until something is so; nobody sends anything."""
        while not reached():
            choices = [c for c in self._choices() if c != self._send_hook]
            await self.random.choice(choices)()

    async def run_to_the_end(self) -> None:
        """Go on until every run has ended and nothing is outstanding."""
        for _ in range(MAX_STEPS):
            if await self._is_over():
                return
            is_fault = self.faults > 0 and self.random.random() < self._fault_rate
            await self.random.choice(self._faults() if is_fault else self._choices())()
        logs = [self.describe(await self.events(run_id)) for run_id in self.run_ids]
        raise AssertionError(f"not finished: {logs}")

    async def events(self, run_id: str) -> list[Event]:
        return [decode_event(e) for e in await self.store.read_events(run_id, limit=10_000)]

    @staticmethod
    def describe(events: Sequence[Event]) -> list[str]:
        return [f"{event.type.name}:{event.id}" for event in events]

    async def deployment(self, run_id: str) -> str:
        """Return where the run is."""
        record = await self.store.read_run(run_id)
        assert record is not None
        return record.deployment

    def _status(self, run_id: str) -> RunStatus:
        return self.store.backend.runs[run_id].status

    async def _is_over(self) -> bool:
        if not all(run.status.is_terminal for run in self.store.backend.runs.values()):
            return False
        return await self.store.depth([partition_of(self.run_ids[0])]) == (0, 0)

    def _choices(self) -> list[Choice]:
        if self.owner is None:
            return [self._take_partition]
        choices: list[Choice] = [self._read_window, self._pass_time, self._send_hook]
        for owner in (self.owner, *self.stale):
            choices += 3 * self._choices_of(owner)
        runs = self.store.backend.runs.values()
        if any(run.status is RunStatus.PAUSED for run in runs):
            choices.append(self._resume)
        if self.nudges and self.random.random() < 0.1:
            choices.append(self._nudge)
        if self.stop_with is not None:
            choices.append(self._stop)
        return choices

    def _faults(self) -> list[Choice]:
        return [
            *(self._lose_reply, self._crash_owner, self._steal, self._crash_instance),
            *(self._lose_answer, self._diverge, self._refuse, self._repeat_effect),
        ]

    def _choices_of(self, owner: Owner) -> list[Choice]:
        choices: list[Choice] = []
        if owner.windows:
            choices.append(partial(self._take_window, owner))
        if owner.loads:
            choices.append(partial(self._load, owner))
        if owner.commits:
            choices.append(partial(self.commit_next, owner))
        if owner.jobs:
            choices.append(partial(self._answer, owner))
        if owner.claims:
            choices.append(owner.settle_claim)
        if owner.effects:
            choices.append(partial(self._carry_out, owner))
        return choices

    def _hit(self, fault: str) -> None:
        self.faults -= 1
        self.hits[fault] += 1

    def _any_run(self) -> str:
        return self.random.choice(list(self.store.backend.runs))

    # ---- what owners do ----

    async def _take_partition(self) -> None:
        await self.acquire()

    async def acquire(self) -> Owner:
        """Let a dispatcher begin."""
        lease = await self.store.acquire(partition_of(self.run_ids[0]), owner="o", ttl_ms=TTL_MS)
        assert lease is not None
        self.owner = Owner(self.store, lease, lambda: self.now_ms, self.started_by, self.begun)
        return self.owner

    async def _read_window(self) -> None:
        """Mostly what is new; now and then everything again, as a new subscription does."""
        if self.owner is not None:
            if self.random.random() < self.reread_rate:
                self.owner.cursor = ""
            await self.owner.request_window(self.random.choice((1, 2, 100)))

    async def _take_window(self, owner: Owner) -> None:
        owner.take_window()

    async def _load(self, owner: Owner) -> None:
        load = self.random.choice(owner.loads)
        await owner.go_on_loading(load, self.random.choice((1, 2, 100)))

    async def commit_next(self, owner: Owner) -> None:
        """Have one of an owner's commits applied and answered."""
        entry = owner.commits.pop(self.random.randrange(len(owner.commits)))
        while owner.windows:  # they were asked for earlier, and answers come in order
            owner.take_window()
        answer = await owner.apply(entry)
        if answer.outcome is CommitOutcome.EPOCH:
            owner.sequencer.abandon()
            if owner in self.stale:
                self.stale.remove(owner)
            return
        if answer.outcome is CommitOutcome.OK:
            assert owner is self.owner, "a stale owner committed"
        owner.sequencer.committed(entry, answer)

    async def _carry_out(self, owner: Owner) -> None:
        effect = owner.effects.pop(self.random.randrange(len(owner.effects)))
        view, message_id, _ = effect
        if await owner.carry_out_next(effect):
            owner.sequencer.carried_out(view.run_id, message_id, "")
        else:
            owner.sequencer.too_early(view.run_id, message_id)

    async def _answer(self, owner: Owner) -> None:
        job = owner.jobs.pop(self.random.randrange(len(owner.jobs)))
        instance, answer = await self.evaluate(job)
        owner.sequencer.answered(job, answer, instance, {"invocation": "inv", "cpu_us": 1})

    async def evaluate(self, job: Job) -> tuple[str, Answer]:
        """Have an instance execute a job; nobody hears of it yet."""
        log = await self.store.read_events(job.view.run_id, limit=10_000)
        return self.instances.evaluate(job, log, self.now_ms)

    # ---- the world ----

    async def _pass_time(self) -> None:
        self.now_ms += self.tick_ms
        if self.owner is not None:
            fired = await self.store.fire_timers(self.owner.lease, limit=10)
            for message in fired.messages if fired is not None else ():
                self.owner.sequencer.offer(message)

    async def _send_hook(self) -> None:
        await self.send_hook(self._any_run())

    async def send_hook(self, run_id: str) -> None:
        """Send the payload that a run's hook waits for, once."""
        if run_id not in self.resumed:
            payload = Payload(run_id=run_id, token="token", resume_id="r1", sealed=b"payload")
            if await send_payload(self.store, payload) is SendOutcome.ACCEPTED:
                self.resumed.add(run_id)

    async def _resume(self) -> None:
        """Somebody continues a run; not always one that is paused."""
        run_id = self._any_run()
        self.hits["resumed"] += self._status(run_id) is RunStatus.PAUSED
        deployment = self.random.choice((None, "dpl", "dpl_2", "dpl_3"))
        meta = {"by": "operator"} if deployment is None else {"deployment": deployment}
        await self.store.send(run_id, Message(MessageKind.RESUME, run_id, meta=meta).encode())

    async def _nudge(self) -> None:
        kind, run_id = self.random.choice(self.nudges), self._any_run()
        self.hits[kind.value] += 1
        await self.store.send(run_id, Message(kind, run_id).encode())

    async def _stop(self) -> None:
        kind = self.stop_with
        if kind is not None and self.random.random() < 0.3:
            self.stop_with = None
            for run_id in self.run_ids:
                body = Message(kind, run_id, meta={"reason": "test"}).encode()
                await self.store.send(run_id, body)

    # ---- faults ----

    async def _lose_reply(self) -> None:
        """The commit is applied, its reply is lost: the owner repeats it unchanged."""
        if self.owner is not None and self.owner.commits:
            self._hit("reply lost")
            await self.owner.apply(self.random.choice(self.owner.commits))

    async def _crash_owner(self) -> None:
        self._hit("owner crashed")
        self.owner = None

    async def _steal(self) -> None:
        if self.owner is not None:
            self._hit("lease stolen")
            self.stale.append(self.owner)
            self.owner = None

    async def _crash_instance(self) -> None:
        self._hit("instance crashed")
        self.instances.forget()
        if self.owner is not None and self.owner.jobs:
            job = self.owner.jobs.pop()
            if job.kind == "step" and job.view.steps[job.step_id].is_isolated:
                self.owner.sequencer.crashed(job, "signal:9", b"half")
            else:
                self.owner.sequencer.lost(job, "instance_died")

    async def _repeat_effect(self) -> None:
        """An effect has happened, and nobody knows: it happens again."""
        if self.owner is not None and self.owner.effects:
            self._hit("effect repeated")
            await self.owner.carry_out_next(self.random.choice(self.owner.effects))

    async def _lose_answer(self) -> None:
        """The instance has evaluated it (its coroutine has advanced); nobody hears of it."""
        if self.owner is not None and self.owner.jobs:
            self._hit("answer lost")
            job = self.owner.jobs.pop()
            await self.evaluate(job)
            self.owner.sequencer.lost(job, "link_lost")

    async def _diverge(self) -> None:
        """The instance's code is broken: the run pauses."""
        if self.owner is not None and self.owner.jobs:
            self._hit("diverged")
            answer = Answer(outcome="diverged", reason="test")
            self.owner.sequencer.answered(self.owner.jobs.pop(), answer, "ins0", {})

    async def _refuse(self) -> None:
        """No instance can be started: the run pauses."""
        if self.owner is not None and self.owner.jobs:
            self._hit("unavailable")
            job = self.owner.jobs.pop()
            self.begun.discard(attempt_of(job))  # it was never started
            self.owner.sequencer.unavailable(job, "import_failed", final=True)


def play(world: World) -> list[list[Event]]:
    """Run a world to its end and return the logs of its runs."""

    async def main() -> list[list[Event]]:
        await world.run()
        run_ids = sorted(world.store.backend.runs)
        for run_id in run_ids:
            log = await world.events(run_id)
            moves = [
                e.meta["deployment"]
                for e in log
                if e.type is EventType.RUN_RESUMED and "deployment" in e.meta
            ]
            world.hits["moved"] += len(moves)
            first = world.store.backend.runs[run_id].start.deployment
            assert await world.deployment(run_id) == [first, *moves][-1]
        return [await world.events(run_id) for run_id in run_ids]

    return asyncio.run(main())
