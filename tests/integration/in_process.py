"""The durable path in one process: the real dispatcher, the real runtime, any store.

`InProcess` stands where the router and the instances stand: it gives each invocation to one of its
`LiveRuns` (two "instances"), and can be told to lose what is under way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import pytest

from fluvial.codec import decode
from fluvial.context import activate
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.ids import continued_run_id, new_run_id
from fluvial.invocations import Answer, Revealed, RevealRequest, StepRequest, TurnRequest
from fluvial.ports import Platform
from fluvial.registry import Registry, registry
from fluvial.resealing import ResealRequest
from fluvial.signatures import encode_call
from fluvial.testing import Mode
from fluvial.turns import LiveRuns
from fluvial.webhook_checks import VERIFY, VerifyRequest
from fluvial.workflows import Workflow
from fluvial_gateway.admission import MAX_IN_FLIGHT
from fluvial_gateway.dispatcher import Dispatcher
from fluvial_gateway.invocations import (
    Answered,
    InvocationHandle,
    Lost,
    Outcome,
    Subject,
    Unavailable,
)
from fluvial_queue.contract import Bell, RunRecord, RunStatus, SendOutcome, StartRun, Store
from fluvial_queue.messages import Message, MessageKind

each_mode = pytest.mark.parametrize("mode", get_args(Mode))
"""Plays a test once in each mode: what it sees must not depend on it."""


@dataclass(frozen=True, slots=True)
class Ground:
    """Where a test is played: on which store, and in which mode unless it says otherwise."""

    url: str
    mode: Mode


APP = "app"
ROOTS = {"k1": os.urandom(32)}


class Silent:
    """An observer that counts what it is told."""

    def __init__(self) -> None:
        self.commits: list[str] = []
        self.invocations: list[tuple[str, str]] = []
        self.attempts: list[str] = []
        self.replays = 0
        self.runs: list[str] = []
        self.pauses: list[str] = []

    def invocation_finished(
        self,
        app: str,
        kind: str,
        outcome: str,
        seconds: float,
        cpu_us: int,
        *,
        function: str = "",
    ) -> None:
        self.invocations.append((kind, outcome))

    def step_finished(self, app: str, step: str, outcome: str) -> None: ...

    def step_attempt(self, app: str, reason: str) -> None:
        self.attempts.append(reason)

    def run_finished(self, app: str, workflow: str, outcome: str) -> None:
        self.runs.append(outcome)

    def run_paused(self, app: str, code: str) -> None:
        self.pauses.append(code)

    def commit(self, answer: str, seconds: float) -> None:
        self.commits.append(answer)

    def handoff(self, seconds: float) -> None: ...

    def replay(self, reason: str, events: int) -> None:
        self.replays += 1


@dataclass(slots=True, eq=False)
class _Handle:
    instance: str | None
    task: asyncio.Task[None]

    def cancel(self, reason: str) -> None:
        self.task.cancel()


class _Refused:
    instance = None

    def cancel(self, reason: str) -> None: ...


class _Pulses:
    """As much of a platform as steps need that report their progress."""

    def __init__(self, progress: dict[asyncio.Task[None], bytes]) -> None:
        self._progress = progress

    def open_pulse(self) -> Callable[[bytes], None]:
        task = asyncio.current_task()
        assert task is not None
        return lambda sealed: self._progress.update({task: sealed} if sealed else {})


class InProcess:
    """Two instances of every deployment in this process; `code` holds the functions of those
    deployments that are not this process's own.

    `mode`: with `replay`, coroutines stay alive, and still every turn asks for the log; with
    `evict`, they are dropped after every invocation.
    """

    def __init__(self, keys: AppKeys, *, mode: Mode = "live") -> None:
        self._keys = keys
        self.code: dict[str, Registry] = {}
        self._instances: dict[tuple[str, int], LiveRuns] = {}
        self._mode = mode
        self._tasks: dict[asyncio.Task[None], Callable[[Outcome], None]] = {}
        self._runs: set[str] = set()
        self._progress: dict[asyncio.Task[None], bytes] = {}
        self.next_instance = 0
        self.is_broken = False  # the deployment cannot be imported
        self.refusal: Unavailable | None = None  # what is told instead of executing anything
        self.platform: Callable[[Subject | None], Platform] | None = None  # of what is executed
        self._started = asyncio.Event()

    def invoke(
        self,
        deployment: str,
        fields: tuple[str, dict[str, Any], bytes],
        *,
        prefer: str | None,
        deadline_seconds: float,
        done: Callable[[Outcome], None],
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
        isolated: bool = False,
    ) -> InvocationHandle:
        if self.is_broken or self.refusal is not None:
            refusal = self.refusal or Unavailable("import_failed", "a test's", False)
            asyncio.get_running_loop().call_soon(done, refusal)
            return _Refused()
        self._started.set()
        number = int(prefer[-1]) if prefer is not None else self.next_instance
        task = asyncio.create_task(self._work(deployment, number, fields, done, subject))
        self._tasks[task] = done
        task.add_done_callback(self._over)
        return _Handle(f"ins{number}", task)

    @property
    def reported(self) -> bool:
        """Whether a step under way has reported its progress."""
        return bool(self._progress)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        self._progress.pop(task, None)

    async def started_next(self) -> None:
        """Wait until something was invoked, and its code has begun."""
        self._started.clear()
        if not self._tasks:
            await self._started.wait()
        await asyncio.sleep(0)

    def forget(self, instance: str, run_ids: Sequence[str]) -> None:
        for (_, number), live in self._instances.items():
            if number == int(instance[-1]):
                live.forget(run_ids)

    def kill_all(self) -> int:
        """Lose everything that is under way and every coroutine; return how many were hit."""
        under_way = dict(self._tasks)
        for task, done in under_way.items():
            task.cancel()
            self._tasks.pop(task)
            done(Lost("ins0", "instance_died", self._progress.get(task, b"")))
        self.evict_all()
        return len(under_way)

    def evict_all(self) -> None:
        """Lose every coroutine, and nothing that is under way; `code` is looked up anew."""
        for live in self._instances.values():
            live.close()
        self._instances.clear()

    def _instance(self, deployment: str, number: int) -> LiveRuns:
        live = self._instances.get((deployment, number))
        if live is None:
            live = LiveRuns(self.code.get(deployment, registry), self._keys)
            self._instances[deployment, number] = live
        return live

    async def _work(
        self,
        deployment: str,
        number: int,
        fields: tuple[str, dict[str, Any], bytes],
        done: Callable[[Outcome], None],
        subject: Subject | None,
    ) -> None:
        kind, meta, body = fields
        if kind in ("reveal", VERIFY):
            self._tell(deployment, number, fields, done)
            return
        if kind == "step" and self._mode == "replay":
            without: dict[str, Any] = {"carry": None}
            meta = {**meta, **without}
        if self.platform is not None:
            activate(None, self.platform(subject))
        else:
            activate(None, cast("Platform", _Pulses(self._progress)))
        self._runs.add(meta["run"])
        live = self._instance(deployment, number)
        try:
            if kind == "turn" and self._mode == "replay" and meta["turn"] is not None:
                answer = Answer(outcome="not_live")
            elif kind == "turn":
                await asyncio.sleep(0)
                answer = live.turn(TurnRequest.from_frame(meta, body))
            elif kind == "reseal":
                answer = live.reseal(ResealRequest.from_frame(meta, body))
            else:
                answer = await live.step(StepRequest.from_frame(meta, body))
        except asyncio.CancelledError:
            if asyncio.current_task() not in self._tasks:
                return  # killed: nobody hears of it
            answer = Answer(outcome="cancelled")
        if self._mode == "evict":
            live.forget(self._runs)
        task = asyncio.current_task()
        if task is not None:
            self._tasks.pop(task, None)  # it is over: nobody may lose it any more
        done(Answered(f"ins{number}", answer, 1))

    def _tell(
        self,
        deployment: str,
        number: int,
        fields: tuple[str, dict[str, Any], bytes],
        done: Callable[[Outcome], None],
    ) -> None:
        """Answer what is told in texts."""
        kind, meta, body = fields
        live = self._instance(deployment, number)
        if kind == VERIFY:
            texts: list[Revealed] = [live.verify(VerifyRequest.from_frame(meta, body))]
        else:
            texts = live.reveal(RevealRequest.from_frame(meta, body))
        done(Answered(f"ins{number}", Answer(outcome="ok"), 1, texts))


class Application:
    """A store, a dispatcher and the in-process instances, with a way to start runs."""

    def __init__(
        self,
        store: Store,
        *,
        mode: Mode = "live",
        on_bell: Callable[[Bell], None] | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        self.store = store
        self._max_in_flight = max_in_flight
        self._on_bell = on_bell
        self.keys = AppKeys(APP, ROOTS, "k1")
        self.instances = InProcess(self.keys, mode=mode)
        self.observer = Silent()
        self.dispatcher = self._dispatcher("gateway")

    def _dispatcher(self, owner: str) -> Dispatcher:
        return Dispatcher(
            self.store,
            self.instances,
            self.observer,
            owner=owner,
            on_bell=self._on_bell,
            max_in_flight=self._max_in_flight,
        )

    async def restart(self, owner: str, drain_seconds: float) -> None:
        """Stop the dispatcher and start another one on the same store."""
        await self.dispatcher.stop(drain_seconds)
        self.dispatcher = self._dispatcher(owner)
        await self.dispatcher.start()

    async def start(
        self,
        workflow: Workflow[..., Any],
        *args: Any,
        deployment: str = "dpl",
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Start a run and return its id; `options`: further fields of `StartRun`."""
        run_id = new_run_id(self.store.partitions)
        sealed = self.keys.for_run(run_id).seal(encode_call(args, {}), "input")
        fields: dict[str, Any] = {"run_id": run_id, "input": sealed, **(options or {})}
        run = StartRun(app=APP, workflow=workflow.name, deployment=deployment, **fields)
        await self.store.start(run)
        return run.run_id

    async def result(self, run_id: str) -> Any:
        """Wait for a run to complete; return what it, or the run it went on as, returned."""
        while (status := await self.finish(run_id)) == "continued":
            run_id = continued_run_id(run_id)
        last = await self._last_event(run_id)
        assert status == "completed", (status, last.meta)
        return decode(self.keys.for_run(run_id).open(last.payload, "result"))

    async def _last_event(self, run_id: str) -> Event:
        return (await self.events(run_id))[-1]

    async def events(self, run_id: str) -> list[Event]:
        """Return a run's log."""
        return [decode_event(e) for e in await self.store.read_events(run_id, limit=100_000)]

    async def kinds(self, run_id: str) -> list[EventType]:
        """Return what kinds of event a run's log has."""
        return [event.type for event in await self.events(run_id)]

    async def record(self, run_id: str) -> RunRecord:
        """Return a run's record."""
        record = await self.store.read_run(run_id)
        assert record is not None
        return record

    async def send(self, kind: MessageKind, run_id: str, **meta: Any) -> SendOutcome:
        """Send a run a message."""
        return await self.store.send(run_id, Message(kind, run_id, meta=meta).encode())

    async def wait_until(
        self, run_id: str, reached: Callable[[RunRecord, list[Event]], bool]
    ) -> list[Event]:
        """Wait until a run's record and log are as `reached` wants them; return the log."""
        async with asyncio.timeout(20):
            while True:
                record, events = await self.record(run_id), await self.events(run_id)
                if reached(record, events):
                    return events
                assert not record.status.is_terminal, [event.type.name for event in events]
                await self.dispatcher.wait_for_events(run_id, record.events, 20)

    async def wait_for_status(self, run_id: str, status: RunStatus) -> None:
        """Wait until a run has a status."""
        await self.wait_until(run_id, lambda record, _: record.status is status)

    async def wait_for_kind(self, run_id: str, kind: EventType, count: int = 1) -> None:
        """Wait until a run's log has so many events of a kind."""
        await self.wait_until(run_id, lambda _, log: [e.type for e in log].count(kind) >= count)

    async def finish(self, run_id: str, seconds: float = 20.0) -> str:
        """Wait for the end of a run; return its status."""
        await self.dispatcher.wait_for_end(run_id, seconds)
        record = await self.store.read_run(run_id)
        assert record is not None
        return record.status.value


Main = Callable[[Application], Awaitable[None]]


def run_application(
    store: Store, main: Main, *, mode: Mode = "live", max_in_flight: int = MAX_IN_FLIGHT
) -> Application:
    """Run a test's coroutine with an open store and a dispatcher on it."""

    async def body() -> Application:
        await store.open()
        application = Application(store, mode=mode, max_in_flight=max_in_flight)
        await application.dispatcher.start()
        try:
            await main(application)
        finally:
            await application.dispatcher.stop(1.0)
            await store.close()
        return application

    return asyncio.run(body())
