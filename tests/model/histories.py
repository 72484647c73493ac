"""Histories of the implementation: what is seen of a run while things happen to it.

The engine is that of the test kit, with the real sequencer, store and runtime; a script decides
what happens, as in the campaigns. After each thing that happens, the store is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fluvial.codec import encode
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.registry import registry
from fluvial.signatures import encode_call
from fluvial.testing.engines import EngineSettings
from fluvial.workflows import Workflow
from fluvial_queue.contract import SendOutcome, StartRun
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.kit import Driver
from fluvial_queue.kit.work import Answering, Committing
from fluvial_queue.memory.state import Run
from fluvial_queue.messages import Message, MessageKind, decode_message
from fluvial_queue.views import unpack_turn
from tests.campaign.script import Script
from tests.campaign.world import InlineThreads
from tests.model.allowed import Sight
from tests.model.programs import TOKEN, let_c_fail

RUN: Final = f"run_00{0:024}"
RIVAL: Final = f"run_01{1:024}"
APP: Final = "model"
MAX_STEPS: Final = 2_000
FAULTS: Final = (
    "reply lost",
    "answer lost",
    "instance crashed",
    "owner crashed",
    "lease stolen",
)
DISTURBANCES: Final = (*FAULTS, "cancel", "rival")
MOST_DISTURBANCES: Final = 4
_NAMES: Final = {
    EventType.RUN_STARTED: "started",
    EventType.HOOK_OPENED: "hook",
    EventType.HOOK_RECEIVED: "payload",
    EventType.TIMER_SET: "sleep",
    EventType.TIMER_FIRED: "woke",
    EventType.RUN_COMPLETED: "COMPLETED",
    EventType.RUN_FAILED: "FAILED",
    EventType.RUN_TERMINATED: "CANCELLED",  # the model's cancel ends a run at once
}


@dataclass(slots=True)
class History:
    """What was seen, and what had happened by then."""

    sights: list[Sight]
    lines: list[str]
    disturbances: list[str]


def play(workflow: Workflow[..., None], seed: int, disturbances: int) -> History:
    """Play a workflow once, with so many disturbances at random moments."""
    return asyncio.run(_Player(workflow, seed, disturbances).play())


class _Player:
    def __init__(self, workflow: Workflow[..., None], seed: int, disturbances: int) -> None:
        self._workflow = workflow
        self._script = Script(seed)
        # What others do is seen, so that no more than one of it is within the model's bound.
        self._planned = [
            self._draw(DISTURBANCES if n == 0 else FAULTS) for n in range(disturbances)
        ]
        self._rate = (0.05, 0.15, 0.4)[self._script.choose(3)]
        let_c_fail(bool(self._script.choose(2)))
        self._keys = AppKeys(APP, {"k": bytes(32)}, "k")
        settings = EngineSettings(
            keys=self._keys,
            registry=registry,
            threads=InlineThreads(),
            mode="live",
            seed=None,
            start_ms=1_800_000_000_000,
            is_automatic=True,
            fault=None,
        )
        self._core = Driver(settings, self._script).core
        self._core.points.is_counting = False
        self._store = self._core.store
        self._history = History([], [], [])

    def _draw(self, names: Sequence[str]) -> str:
        return names[self._script.choose(len(names))]

    async def play(self) -> History:
        await self._start(RUN, self._workflow.name)
        self._look()
        for _ in range(MAX_STEPS):
            if not await self._step() and self._run.status.is_terminal:
                self._history.lines = self._core.history.lines()
                return self._history
            self._look()
        raise AssertionError(f"not over: {self._core.history.lines()[-20:]}")

    @property
    def _run(self) -> Run:
        return self._store.backend.runs[RUN]

    async def _step(self) -> bool:
        if self._planned and self._script.seldom(2, self._rate):
            await self._disturb()
        elif self._script.seldom(2, 0.1):
            return await self._resume() or self._core.move_time(self._core.now_ms() + 1000)
        else:
            return (
                await self._core.happen()
                or self._core.move_time(self._core.now_ms() + 1000)
                or await self._resume()
            )
        return True

    # ---- what happens ----

    async def _start(self, run_id: str, name: str) -> None:
        sealed = self._keys.for_run(run_id).seal(encode_call((), {}), "input")
        run = StartRun(run_id=run_id, app=APP, workflow=name, deployment="dpl_kit", input=sealed)
        await self._store.start(run)

    async def _resume(self) -> bool:
        sealed = self._keys.for_run(RUN).seal(encode(None), "hook", TOKEN)
        payload = Payload(run_id=RUN, token=TOKEN, resume_id="r", sealed=sealed)
        outcome = await send_payload(self._store, payload)
        return outcome is SendOutcome.ACCEPTED

    async def _disturb(self) -> None:
        """Let the next disturbance happen, if there is something that it can disturb."""
        name = self._planned[0]
        if await self._disturbs(name):
            self._planned.pop(0)
            self._history.disturbances.append(name)

    async def _disturbs(self, name: str) -> bool:
        faults, owner = self._core.faults, self._core.owners.get(0)
        if name == "cancel":
            body = Message(MessageKind.TERMINATE, RUN).encode()
            return await self._store.send(RUN, body) is SendOutcome.ACCEPTED
        if name == "rival":
            await self._start(RIVAL, "retry_and_sleep")
            return True
        if name == "instance crashed":
            faults.crash_instance(self._script.choose(2))
            return True
        if owner is None:
            return False
        if name == "owner crashed":
            faults.crash_owner(owner)
        elif name == "lease stolen":
            await faults.steal(0)
        elif name == "reply lost":
            found = [w for w in owner.work if isinstance(w, Committing) and not w.was_applied]
            for work in found[:1]:
                await faults.lose_reply(owner, work)
            return bool(found)
        else:
            arriving = [work for work in owner.work if isinstance(work, Answering)]
            for answer in arriving[:1]:
                owner.work.remove(answer)
                faults.lose_answer(owner, answer)
            return bool(arriving)
        return True

    # ---- what is seen ----

    def _look(self) -> None:
        sight = self._sight()
        if not self._history.sights or self._history.sights[-1] != sight:
            self._core.history.add(f"- seen: {sight}")
            self._history.sights.append(sight)

    def _sight(self) -> Sight:
        run = self._run
        partition = self._store.backend.partition(0)
        events = [decode_event(event) for event in run.log]
        steps = {e.id: e.meta["name"] for e in events if e.type is EventType.STEP_SCHEDULED}
        messages = [decode_message(partition.messages[message].body) for message in run.messages]
        return Sight(
            log=tuple(_event_names(events, steps)),
            consumed=unpack_turn(run.turn)[0] if run.turn else 0,
            messages=_message_names(messages, steps),
            timers=_message_names(map(decode_message, run.timers), steps),
        )


def _event_names(events: Sequence[Event], steps: dict[int, str]) -> Iterable[str]:
    """Name events as the model does; records that the model does not know are left out."""
    refused = {event.id for event in events if event.type is EventType.HOOK_CONFLICT}
    for event in events:
        if event.type is EventType.STEP_SCHEDULED:
            yield f"sched:{steps[event.id]}"
        elif event.type is EventType.STEP_COMPLETED:
            yield f"done:{steps[event.id]}"
        elif event.type is EventType.STEP_RETRYING:
            yield f"failed:{steps[event.id]}:{event.meta['attempt']}"
        elif event.type is EventType.HOOK_OPENED and event.id in refused:
            yield "conflict"
        elif event.type in _NAMES:
            yield _NAMES[event.type]


def _message_names(messages: Iterable[Message], steps: dict[int, str]) -> frozenset[str]:
    names: dict[MessageKind, Any] = {
        MessageKind.HOOK: "resume",
        MessageKind.TERMINATE: "cancel",
    }
    return frozenset(
        f"step:{steps[m.id]}:{m.attempt}"
        if m.kind is MessageKind.STEP
        else names.get(m.kind, m.kind.value)
        for m in messages
    )
