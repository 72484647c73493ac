"""A world of real workflows in which things break: an engine of the test kit, and others around.

What happens next is decided by a `Script`; see there. The world ends when every run has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fluvial.codec import encode
from fluvial.encryption import AppKeys
from fluvial.events import Event, decode_event
from fluvial.registry import registry
from fluvial.signatures import encode_call
from fluvial.testing.engines import EngineSettings
from fluvial_queue.contract import RunStatus, SendOutcome, StartOutcome, StartRun
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.kit import Driver
from fluvial_queue.kit.owner import Owner
from fluvial_queue.kit.work import Answering, Carrying, Committing, Invoking, Work
from fluvial_queue.memory.state import Run
from fluvial_queue.messages import Message, MessageKind
from tests.campaign import programs
from tests.campaign.plans import Plan
from tests.campaign.programs import Outside
from tests.campaign.script import Script
from tests.campaign.watching import Watch

WorkT = TypeVar("WorkT", bound=Work)

APP: Final = "campaign"
START_MS: Final = 1_800_000_000_000
MAX_STEPS: Final = 5_000
ROOT_KEY: Final = bytes(range(32))

FAULTS: Final = (
    "reply lost",
    "answer lost",
    "owner crashed",
    "lease stolen",
    "instance crashed",
    "all crashed",
    "evicted",
    "effect repeated",
    "not available",
)
OUTSIDERS: Final = ("payload", "payload again", "start again")


class InlineThreads:
    """Bodies of sync steps run at once: threads would make a schedule that no seed repeats."""

    async def run(self, function: Callable[[], Any]) -> Any:
        return function()


class World:
    """Runs of a plan, and a script that decides what happens to them."""

    def __init__(self, plan: Plan, script: Script) -> None:
        self.plan = plan
        self.script = script
        self.keys = AppKeys(APP, {"k": ROOT_KEY}, "k")
        settings = EngineSettings(
            keys=self.keys,
            registry=registry,
            threads=InlineThreads(),
            mode=plan.mode,
            seed=None,
            start_ms=START_MS,
            is_automatic=True,
            fault=None,
        )
        self.driver = Driver(settings, script)
        self.core = self.driver.core
        self.core.points.is_counting = False
        self.store = self.core.store
        self.watch = Watch(self.core)
        self.core.watchers.append(self.watch)
        self.outside = Outside(self.driver.pause)
        self.hits: Counter[str] = Counter()
        self.armed: list[str] = []  # faults that are planned and have not happened yet
        self.payloads: dict[str, tuple[str, str]] = {}  # accepted: resume id → (run, token)
        self.starts: list[StartRun] = []
        self._faults_left = plan.faults
        has_effects = not {"campaign.parent", "campaign.continuing"}.isdisjoint(plan.programs)
        self.faults = FAULTS if has_effects else tuple(f for f in FAULTS if "effect" not in f)

    @property
    def runs(self) -> list[Run]:
        """All runs, also those that others have started."""
        return list(self.store.backend.runs.values())

    def events(self, run: Run) -> list[Event]:
        """The log of a run."""
        return [decode_event(event) for event in run.log]

    # ---- the schedule ----

    async def play(self) -> None:
        """Play until every run has ended and nothing is outstanding."""
        programs.enter(self.outside)
        try:
            for number, name in enumerate(self.plan.programs):
                await self._start(number, name)
            for _ in range(MAX_STEPS):
                if not await self._step() and await self._is_over():
                    return
            raise AssertionError(f"not over after {MAX_STEPS} steps")
        finally:
            await self.driver.close()

    async def _step(self) -> bool:
        """Let one thing happen; False: nothing can happen any more."""
        if self._faults_left and (fault := self._seldom(self.faults, self.plan.fault_rate)):
            self._faults_left -= 1
            self.armed.append(fault)
        if self.armed and await self._break():
            return True
        if request := self._seldom(self.plan.steering, self.plan.steering_rate):
            await self._steer(request)
        elif request := self._seldom(OUTSIDERS, self.plan.steering_rate):
            await self._disturb(request)
        elif self.plan.haste and self.script.seldom(2, self.plan.haste):
            self.core.move_time(self.driver.now_ms + 1_000)
        else:
            return await self.core.happen() or self._pass_time() or await self._help()
        return True

    def _seldom(self, names: tuple[str, ...], rate: float) -> str:
        choice = self.script.seldom(len(names) + 1, rate) if names else 0
        return names[choice - 1] if choice else ""

    def _pass_time(self) -> bool:
        # A hook's own timeout is a minute: whoever helps is faster, but not always.
        limit_ms = 1_000 if self._waiting_hooks() and self.script.choose(8) else 1_000_000
        return self.core.move_time(self.driver.now_ms + limit_ms)

    async def _help(self) -> bool:
        """When nothing goes on by itself: hand payloads out, let paused runs go on."""
        hooks = self._waiting_hooks()
        paused = [run for run in self.runs if run.status is RunStatus.PAUSED]
        for run in paused:
            await self._send(run, MessageKind.RESUME)
        for run, token in hooks:
            await self._pay(run, token, f"help {len(self.payloads)}")
        return bool(hooks or paused)

    async def _is_over(self) -> bool:
        if not all(run.status.is_terminal for run in self.runs):
            statuses = [f"{run.start.workflow} {run.status.value}" for run in self.runs]
            raise AssertionError(f"stuck: {', '.join(statuses)}")
        outstanding = await self.store.depth(range(self.store.partitions))
        assert outstanding == (0, 0), f"left over: {outstanding} (messages, timers)"
        return True

    # ---- what others do ----

    async def _start(self, number: int, name: str) -> None:
        run_id = f"run_{number % self.store.partitions:02}{number:024}"
        plaintext = encode_call((self.plan.size,), {})
        start = StartRun(
            run_id=run_id,
            app=APP,
            workflow=name,
            deployment="dpl_kit",
            input=self.keys.for_run(run_id).seal(plaintext, "input"),
            fingerprint=self.keys.fingerprint(name, plaintext),
        )
        self.starts.append(start)
        assert await self.store.start(start) is StartOutcome.ACCEPTED

    async def _steer(self, request: str) -> None:
        run = self._any_run()
        self.hits[request] += not run.status.is_terminal
        self.core.history.add(f"somebody asks {run.start.run_id} to {request}")
        await self._send(run, MessageKind(request))

    async def _send(self, run: Run, kind: MessageKind) -> SendOutcome:
        meta: dict[str, Any] = {"reason": "somebody's", "by": "somebody"}
        if kind is MessageKind.TAG:
            meta = {"tags": {"a": "b"}, "by": "somebody"}
        body = Message(kind, run.start.run_id, meta=meta).encode()
        outcome = await self.store.send(run.start.run_id, body)
        is_over = run.status.is_terminal
        assert outcome is (SendOutcome.CLOSED if is_over else SendOutcome.ACCEPTED)
        return outcome

    async def _disturb(self, request: str) -> None:
        if request == "start again":
            again = self.starts[self.script.choose(len(self.starts))]
            assert await self.store.start(again) is StartOutcome.DUPLICATE
            self.hits[request] += 1
        elif request == "payload again" and self.payloads:
            resume_id = list(self.payloads)[self.script.choose(len(self.payloads))]
            run_id, token = self.payloads[resume_id]
            outcome = await self._resume(run_id, token, resume_id)
            is_over = self.store.backend.runs[run_id].status.is_terminal
            assert outcome is (SendOutcome.UNKNOWN if is_over else SendOutcome.DUPLICATE), outcome
            self.hits[request] += 1
        elif request == "payload" and (hooks := self._waiting_hooks()):
            run, token = hooks[self.script.choose(len(hooks))]
            await self._pay(run, token, f"early {len(self.payloads)}")
            self.hits[request] += 1

    async def _pay(self, run: Run, token: str, resume_id: str) -> None:
        outcome = await self._resume(run.start.run_id, token, resume_id)
        assert outcome is SendOutcome.ACCEPTED, outcome
        self.payloads[resume_id] = run.start.run_id, token

    async def _resume(self, run_id: str, token: str, resume_id: str) -> SendOutcome:
        payload = self.keys.for_run(run_id).seal(encode(7), "hook", token)
        self.core.history.add(f"somebody resumes {token!r} of {run_id}")
        sending = Payload(run_id=run_id, token=token, resume_id=resume_id, sealed=payload)
        return await send_payload(self.store, sending)

    def _waiting_hooks(self) -> list[tuple[Run, str]]:
        return [
            (run, token)
            for run in self.runs
            for token, hook in run.hooks.items()
            if hook is not None
        ]

    def _any_run(self) -> Run:
        return self.runs[self.script.choose(len(self.runs))]

    # ---- faults ----

    async def _break(self) -> bool:
        """Let a planned fault happen, as soon as there is something that it can break."""
        for fault in self.armed:
            if await self._breaks[fault](self):
                self.armed.remove(fault)
                self.hits[fault] += 1
                return True
        return False

    async def _lose_reply(self) -> bool:
        found = self._pick(Committing, lambda work: not work.was_applied)
        if found is None:
            return False
        await self.core.faults.lose_reply(*found)
        return True

    async def _lose_answer(self) -> bool:
        found = self._pick(Answering)
        if found is None:
            return False
        found[0].work.remove(found[1])
        self.core.faults.lose_answer(*found)
        return True

    async def _crash_owner(self) -> bool:
        owner = self._any_owner()
        if owner is None:
            return False
        self.core.faults.crash_owner(owner)
        return True

    async def _steal(self) -> bool:
        owner = self._any_owner()
        if owner is None or owner in self.core.stale:
            return False
        await self.core.faults.steal(owner.lease.partition)
        return True

    async def _crash_instance(self) -> bool:
        self.core.faults.crash_instance(self.script.choose(self.core.instances.count))
        return True

    async def _crash_all(self) -> bool:
        self.core.faults.crash()
        return True

    async def _evict(self) -> bool:
        run_id = self._any_run().start.run_id
        for number in range(self.core.instances.count):
            self.core.instances.forget(number, [run_id])
        return True

    async def _repeat_effect(self) -> bool:
        found = self._pick(Carrying)
        return found is not None and await self.core.faults.repeat_effect(*found)

    async def _refuse(self) -> bool:
        found = self._pick(Invoking)
        if found is None:
            return False
        owner, work = found
        owner.work.remove(work)
        owner.sequencer.unavailable(work.job, "import_failed", final=True)
        return True

    _breaks: Final[dict[str, Callable[[World], Awaitable[bool]]]] = {
        "reply lost": _lose_reply,
        "answer lost": _lose_answer,
        "owner crashed": _crash_owner,
        "lease stolen": _steal,
        "instance crashed": _crash_instance,
        "all crashed": _crash_all,
        "evicted": _evict,
        "effect repeated": _repeat_effect,
        "not available": _refuse,
    }

    def _pick(
        self, kind: type[WorkT], fits: Callable[[WorkT], bool] = lambda _: True
    ) -> tuple[Owner, WorkT] | None:
        owners = [*self.core.owners.values(), *self.core.stale]
        found = [(o, w) for o in owners for w in o.work if isinstance(w, kind) and fits(w)]
        return found[self.script.choose(len(found))] if found else None

    def _any_owner(self) -> Owner | None:
        owners = [*self.core.owners.values(), *self.core.stale]
        return owners[self.script.choose(len(owners))] if owners else None
