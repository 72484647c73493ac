"""A dispatcher and a store on a Python list, in virtual time, to play workflows on.

Each workflow is played in four modes, which must write the same log and come to the same result:

    live     every turn goes on with the suspended coroutine
    replay   every turn replays the whole log
    carry    a step that is the only outstanding operation takes the next turn along
    evict    every turn asks for the coroutine, which is dropped each time, and then replays
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest

from fluvial.codec import decode, encode, encode_json
from fluvial.context import Invocation, activate
from fluvial.encryption import AppKeys
from fluvial.error_payloads import decode_error
from fluvial.events import INPUTS, TERMINAL, Event, EventType, decode_event
from fluvial.invocations import Answer, StepHistory, StepRequest, TurnRequest
from fluvial.payloads import PayloadReader
from fluvial.registry import registry
from fluvial.sealing import Binding, seal
from fluvial.signatures import encode_call
from fluvial.turns import LiveRuns
from fluvial.workflows import Workflow

Mode = Literal["live", "replay", "carry", "evict"]
MODES: tuple[Mode, ...] = ("live", "replay", "carry", "evict")
APP = "orders"
RUN = "run_0000000000000000000000000a"
OTHER_RUN = "run_0000000000000000000000000b"
START_MS = 1_700_000_000_000
MAX_ROUNDS = 20_000
_UNSTABLE = frozenset({"delay_ms", "invocation", "progress"})  # of STEP_RETRYING: drawn at random


@dataclass(frozen=True, slots=True)
class Resume:
    """At `at_ms` after the start, somebody hands `value` to a hook."""

    at_ms: int
    value: Any
    token: str | None = None  # None: of the hook opened last
    as_json: bool = False
    conflict: bool = False  # not a payload: the store says that another run holds the token
    ask: bool = False  # who sends it waits for an answer
    resume: str = "r"
    late: bool = False  # it was accepted before the hook closed, and is recorded only now


@dataclass(frozen=True, slots=True)
class Cancel:
    """At `at_ms` after the start, somebody cancels the run."""

    at_ms: int


@dataclass(frozen=True, slots=True)
class Wake:
    """At `at_ms` after the start, somebody ends all sleeps."""

    at_ms: int


Action = Resume | Cancel | Wake


@dataclass
class Outcome:
    """What a run came to."""

    events: list[Event]
    result: Any
    error: BaseException | None

    @property
    def types(self) -> list[str]:
        return [event.type.name for event in self.events]

    @property
    def outline(self) -> list[tuple[Any, ...]]:
        """The log without what may differ from one playing to the next."""
        return [
            (
                event.type.name,
                event.at_ms if event.type is not EventType.STEP_RETRYING else 0,
                event.id,
                {k: v for k, v in event.meta.items() if _is_stable(event, k)},
            )
            for event in self.events
        ]

    def answers(self) -> dict[str, tuple[bool, str, Any]]:
        """What was answered to whom: by resume id, (ok, why, value)."""
        reader = PayloadReader(make_keys().for_run(RUN))
        return {
            event.meta["resume"]: (event.meta["ok"], event.meta.get("why", ""), reader.value(event))
            for event in self.events
            if event.type is EventType.HOOK_ANSWERED
        }

    def count(self, event_type: EventType) -> int:
        return sum(event.type is event_type for event in self.events)


def _is_stable(event: Event, key: str) -> bool:
    return event.type is not EventType.STEP_RETRYING or key not in _UNSTABLE


def context_on(deployment: str | None) -> Context:
    """The context of an invocation on a deployment; None: of no invocation."""
    context = copy_context()
    if deployment is not None:
        invocation = Invocation(
            id="inv_x", kind="turn", app=APP, deployment=deployment, instance="ins_x"
        )
        context.run(activate, invocation, None)
    return context


def make_keys() -> AppKeys:
    return AppKeys(APP, {"k1": bytes(range(32))}, "k1")


@dataclass
class Player:
    """One playing of one run."""

    mode: Mode
    batch: bool = False
    durations: dict[str, int] = field(default_factory=dict[str, int])
    keys: AppKeys = field(default_factory=make_keys)
    log: list[bytes] = field(default_factory=list[bytes])
    now_ms: int = START_MS
    children: dict[str, Any] = field(default_factory=dict[str, Any])  # workflow → result or error
    cut_off: str = ""  # a step whose execution is lost; it must be one that runs at most once
    run_id: str = RUN

    def __post_init__(self) -> None:
        self.live = LiveRuns(registry, self.keys, clock=lambda: 0.0)
        self.consumed = 0
        self.turn_id: bytes | None = None
        self._sequence = itertools.count()
        self._due: list[tuple[int, int, Callable[[], Awaitable[None]]]] = []
        self._steps: dict[int, Event] = {}
        self._history: dict[int, StepHistory] = {}
        self._timers: set[int] = set()
        self._hooks: dict[int, str] = {}
        self._closed_hooks: dict[int, str] = {}
        self._children: dict[int, Event] = {}
        self._turn_due = False
        self.ended = False

    def events(self) -> list[Event]:
        return [decode_event(data) for data in self.log]

    async def play(
        self, workflow: Workflow[..., Any], args: tuple[Any, ...], actions: Sequence[Action]
    ) -> None:
        self._workflow = workflow.name
        payload = self.keys.seal(Binding(APP, self.run_id, "input"), encode_call(args, {}))
        meta = {"workflow": workflow.name, "deployment": "dpl_x"}
        self._record(Event(EventType.RUN_STARTED, self.now_ms, 0, payload, meta))
        for action in actions:
            self._push(START_MS + action.at_ms, functools.partial(self._act, action))
        for _ in range(MAX_ROUNDS):
            if self.ended:
                return
            if self._turn_due and not (self.batch and self._due_now()):
                self._turn()
            elif self._due:
                at_ms, _, what = heapq.heappop(self._due)
                self.now_ms = max(self.now_ms, at_ms)
                await what()
            else:
                raise AssertionError(f"stuck: {[e.type.name for e in self.events()]}")
        raise AssertionError("the run does not end")

    def _due_now(self) -> bool:
        return bool(self._due) and self._due[0][0] <= self.now_ms

    def _push(self, at_ms: int, what: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._due, (at_ms, next(self._sequence), what))

    def _turn(self) -> None:
        answer = Answer(outcome="not_live")
        if self.mode != "replay" and self.turn_id is not None:
            inputs = [data for data in self.log if decode_event(data).type in INPUTS]
            answer = self.live.turn(self._request(self.turn_id, inputs[self.consumed :]))
            assert answer.outcome == "not_live" or self.mode != "evict"
        if answer.outcome == "not_live":
            assert self.turn_id is None or self.mode in ("replay", "evict")
            answer = self.live.turn(self._request(None, self.log))
        assert answer.outcome == "ok", answer.reason
        self._commit(answer, answer.events)
        if self.mode == "evict":
            self.live.forget([RUN])

    def _request(self, turn_id: bytes | None, events: list[bytes]) -> TurnRequest:
        return TurnRequest(
            run_id=self.run_id,
            app=APP,
            workflow=self._workflow,
            turn_id=turn_id,
            consumed=self.consumed,
            now_ms=self.now_ms,
            events=list(events),
        )

    def _commit(self, answer: Answer, outputs: Any) -> None:
        self.turn_id = answer.turn_id
        self.consumed = sum(decode_event(data).type in INPUTS for data in self.log)
        self._turn_due = False
        for data in outputs:
            self._apply(data)

    def _record(self, event: Event) -> None:
        self.log.append(event.encode())
        self._turn_due = True

    def _apply(self, data: bytes) -> None:
        assert not self.ended, "an event after the end"
        self.log.append(data)
        event = decode_event(data)
        match event.type:
            case EventType.STEP_SCHEDULED:
                self._steps[event.id] = event
                after = self.durations.get(event.meta["name"].rpartition(".")[2], 1)
                self._push(self.now_ms + after, lambda: self._step(event.id, 1))
            case EventType.TIMER_SET:
                self._timers.add(event.id)
                self._push(self.now_ms + event.meta["delay_ms"], lambda: self._fire(event.id))
            case EventType.HOOK_OPENED:
                self._hooks[event.id] = event.meta["token"]
            case EventType.STEP_CANCELLED:
                self._steps.pop(event.id, None)
            case EventType.CHILD_SCHEDULED:
                self._children[event.id] = event
                self._push(self.now_ms + 5, lambda: self._end_child(event))
            case EventType.CHILD_CANCELLED:
                self._children.pop(event.id, None)
            case EventType.TIMER_CANCELLED:
                self._timers.discard(event.id)
            case EventType.HOOK_CLOSED:
                self._hooks.pop(event.id, None)
                self._closed_hooks[event.id] = event.meta["token"]
            case _:
                self.ended = event.type in TERMINAL

    async def _fire(self, timer: int, *, early: bool = False) -> None:
        if timer in self._timers:
            self._timers.remove(timer)
            meta = {"early": True} if early else {}
            self._record(Event(EventType.TIMER_FIRED, self.now_ms, timer, meta=meta))

    async def _end_child(self, scheduled: Event) -> None:
        if self._children.pop(scheduled.id, None) is None or scheduled.meta["policy"] == "detach":
            return
        run_id, outcome = scheduled.meta["run"], self.children[scheduled.meta["workflow"]]
        keys = self.keys.for_run(run_id)
        args, kwargs = decode(keys.open(scheduled.payload, "input"))
        if isinstance(outcome, BaseException):
            meta = {"run": run_id, "status": "failed", "reason": "exception"}
            sealed = keys.seal(encode(outcome), "error")
            event = Event(EventType.CHILD_FAILED, self.now_ms, scheduled.id, sealed, meta)
        else:
            sealed = keys.seal(encode(outcome(*args, **kwargs)), "result")
            meta = {"run": run_id, "hops": 0}
            event = Event(EventType.CHILD_COMPLETED, self.now_ms, scheduled.id, sealed, meta)
        self._record(event)

    async def _step(self, step: int, attempt: int) -> None:
        scheduled = self._steps.get(step)
        if scheduled is None:
            return
        if scheduled.meta["name"] == self.cut_off:
            assert scheduled.meta["once"]
            del self._steps[step]
            meta = {"attempt": attempt, "reason": "interrupted", "cause": "instance_died"}
            self._record(Event(EventType.STEP_FAILED, self.now_ms, step, meta=meta))
            return
        deadline_ms = scheduled.meta.get("deadline_ms", 0)
        others = self._timers or self._children or self._turn_due
        only = len(self._steps) == 1 and not others
        carry = self.turn_id if self.mode in ("carry", "evict") and only else None
        answer = await self.live.step(
            StepRequest(
                run_id=self.run_id,
                app=APP,
                workflow=self._workflow,
                step=scheduled.meta["name"],
                id=step,
                attempt=attempt,
                invocation="inv_x",
                timeout_ms=scheduled.meta["timeout_ms"],
                now_ms=self.now_ms,
                carry=carry,
                input=scheduled.payload,
                history=self._history.get(step),
                expires_ms=scheduled.at_ms + deadline_ms if deadline_ms else 0,
            )
        )
        assert answer.outcome == "ok"
        end = decode_event(answer.events[0])
        self.log.append(answer.events[0])
        if end.type is EventType.STEP_RETRYING:
            known = self._history.get(step, StepHistory(started_ms=self.now_ms))
            progress = end.meta.get("progress") or known.progress
            known = replace(known, error=end.payload, progress=progress)
            if end.meta.get("exhausted"):  # the run pauses, and somebody resumes it
                known = replace(known, forgiven=attempt)
            self._history[step] = known
            self._push(self.now_ms + 1000, lambda: self._step(step, attempt + 1))
            return
        del self._steps[step]
        self._turn_due = True
        if answer.turn_id is not None:
            self._commit(answer, answer.events[1:])

    async def _act(self, action: Action) -> None:
        if isinstance(action, Cancel):
            self._record(Event(EventType.CANCEL_REQUESTED, self.now_ms, meta={"reason": "test"}))
            return
        if isinstance(action, Wake):
            for timer in sorted(self._timers):
                await self._fire(timer, early=True)
            return
        known = self._closed_hooks if action.late else self._hooks
        found = [(i, t) for i, t in known.items() if action.token in (None, t)]
        if not found:
            return
        hook, token = found[-1]
        if action.conflict:
            del self._hooks[hook]
            held = {"token": token, "run": OTHER_RUN}
            self._record(Event(EventType.HOOK_CONFLICT, self.now_ms, hook, meta=held))
            return
        binding = Binding(APP, self.run_id, "hook", token)
        if action.as_json:
            key_id, public_key = self.keys.public_key()
            payload = seal(public_key, key_id, encode_json(action.value), binding)
        else:
            payload = self.keys.seal(binding, encode(action.value))
        meta: dict[str, Any] = {"token": token, "resume": action.resume}
        if action.ask:
            meta["ask"] = True
        self._record(Event(EventType.HOOK_RECEIVED, self.now_ms, hook, payload, meta))

    def outcome(self) -> Outcome:
        events = self.events()
        last = events[-1]
        keys = self.keys.for_run(self.run_id)
        if last.type is EventType.RUN_COMPLETED:
            return Outcome(events, decode(keys.open(last.payload, "result")), None)
        if last.type is EventType.RUN_FAILED:
            return Outcome(events, None, decode_error(keys.open(last.payload, "error")))
        return Outcome(events, None, None)


class Play:
    """Plays a workflow in every mode, demands equal logs and results, returns what it came to."""

    modes = MODES

    def __call__(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        actions: Sequence[Action] = (),
        before: Callable[[], object] | None = None,
        durations: dict[str, int] | None = None,
        batch: bool = False,
        children: dict[str, Any] | None = None,
        cut_off: str = "",
    ) -> Outcome:
        outcomes: list[Outcome] = []
        for mode in MODES:
            if before is not None:
                before()
            player = Player(mode, batch, durations or {}, children=children or {})
            player.cut_off = cut_off
            asyncio.run(player.play(workflow, args, actions))
            outcomes.append(player.outcome())
        for outcome in outcomes[1:]:
            assert outcome.outline == outcomes[0].outline
            assert repr(outcome.result) == repr(outcomes[0].result)
        return outcomes[0]

    def resume(self, at_ms: int, value: Any = None, **options: Any) -> Resume:
        return Resume(at_ms, value, **options)

    def cancel(self, at_ms: int) -> Cancel:
        return Cancel(at_ms)

    def wake(self, at_ms: int) -> Wake:
        return Wake(at_ms)

    def player(self, mode: Mode = "live") -> Player:
        return Player(mode)


@pytest.fixture
def play() -> Play:
    return Play()


@pytest.fixture
def keys() -> AppKeys:
    return make_keys()


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    """Functions that a test registers do not outlive it."""
    steps, workflows = dict(registry.steps), dict(registry.workflows)
    yield
    registry.steps.clear()
    registry.steps.update(steps)
    registry.workflows.clear()
    registry.workflows.update(workflows)
