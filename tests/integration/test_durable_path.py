"""Dispatcher, sequencer, runtime and store together, in one process."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

import fluvial
from fluvial.codec import decode
from fluvial.encryption import KeySet
from fluvial.events import EventType, decode_event
from fluvial.sealing import read_head
from fluvial.testing import Mode
from fluvial_gateway.admission import MAX_IN_FLIGHT
from fluvial_queue import open_store
from fluvial_queue.contract import RunStatus, SendOutcome, StoreUnavailableError
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, MessageKind
from tests.integration.in_process import (
    ROOTS,
    Application,
    Ground,
    Main,
    each_mode,
    run_application,
)

executions: list[str] = []


@fluvial.step(name="path.add")
async def add(a: int, b: int) -> int:
    executions.append("add")
    return a + b


@fluvial.step(retries=2, backoff=0.01, name="path.flaky")
async def flaky(name: str) -> str:
    executions.append(name)
    if executions.count(name) < 3:
        raise ValueError(name)
    return name


@fluvial.step(retries=0, name="path.broken")
async def broken() -> None:
    raise ValueError("always")


@fluvial.step(name="path.slow")
async def slow(seconds: float) -> str:
    executions.append("slow")
    await asyncio.sleep(seconds)
    return "slow"


@fluvial.workflow(name="path.sums")
async def sums(count: int) -> int:
    total = 0
    for number in range(count):
        total = await add(total, number)
    return total


@fluvial.workflow(name="path.together")
async def together(count: int) -> list[int]:
    return await asyncio.gather(*(add(number, 1) for number in range(count)))


@fluvial.workflow(name="path.careful")
async def careful() -> str:
    try:
        await broken()
    except fluvial.StepFailedError as error:
        await asyncio.sleep(0.02)
        return f"{type(error.__cause__).__name__}, then {await flaky('tried')}"
    return "unexpected"


@fluvial.workflow(name="path.impatient")
async def impatient() -> str:
    try:
        async with asyncio.timeout(0.05):
            return await slow(30.0)
    except TimeoutError:
        return f"late {await add(1, 1)}"


@fluvial.step(retries=1, backoff=0.2, name="path.failing_once")
async def failing_once() -> None:
    executions.append("failing once")
    if executions.count("failing once") < 2:
        raise ValueError("once")


@fluvial.workflow(name="path.patient")
async def patient() -> None:
    await failing_once()


@fluvial.workflow(name="path.nap")
async def nap() -> str:
    return await slow(0.2)


@fluvial.workflow(name="path.many_naps")
async def many_naps() -> int:
    return len(await asyncio.gather(*(slow(0.2) for _ in range(1000))))


@fluvial.workflow(name="path.cleans_up")
async def cleans_up() -> str:
    try:
        await slow(30.0)
    finally:
        await add(1, 2)
    return "unexpected"


@fluvial.step(backoff=0.2, name="path.remembering")
async def remembering() -> str:
    known = fluvial.metadata()
    if known.attempt == 1:
        raise ValueError("first")
    assert known.step_started_at is not None
    executions.append(str(round(known.step_started_at.timestamp() * 1000)))
    return repr(known.previous_error)


@fluvial.workflow(name="path.remembers")
async def remembers() -> str:
    return await remembering()


class Play(Protocol):
    """Runs a test's coroutine with a store, a dispatcher and instances."""

    def __call__(self, main: Main, *, mode: Mode | None = None) -> Application: ...


@pytest.fixture
def play(ground: Ground) -> Play:
    executions.clear()

    def play(main: Main, *, mode: Mode | None = None) -> Application:
        return run_application(open_store(ground.url), main, mode=mode or ground.mode)

    return play


async def kinds_of(app: Application, run_id: str) -> list[EventType]:
    return [decode_event(e).type for e in await app.store.read_events(run_id, limit=100_000)]


async def send(app: Application, kind: MessageKind, run_id: str) -> SendOutcome:
    return await app.store.send(run_id, Message(kind, run_id, meta={"reason": "test"}).encode())


async def wait_for_status(app: Application, run_id: str, status: RunStatus) -> None:
    async with asyncio.timeout(20):
        while True:
            record = await app.store.read_run(run_id)
            assert record is not None
            if record.status is status:
                return
            assert not record.status.is_terminal, record.status
            await app.dispatcher.wait_for_events(run_id, record.events, 20)


async def wait_for_kind(app: Application, run_id: str, kind: EventType) -> None:
    async with asyncio.timeout(20):
        while kind not in (kinds := await kinds_of(app, run_id)):
            await app.dispatcher.wait_for_events(run_id, len(kinds), 20)


@each_mode
def test_a_sequence_of_steps(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sums, 10)
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        done = [e for e in events if e.type is EventType.STEP_COMPLETED]
        assert len(done) == 10
        assert all(e.meta["attempt"] == 1 and e.meta["invocation"] for e in done)
        assert len({e.meta["invocation"] for e in done}) == 10

    app = play(main, mode=mode)
    if mode == "live":
        assert len(app.observer.commits) == 12  # start, first turn, one for each step
        assert app.observer.replays == 0


@each_mode
def test_parallel_steps(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        assert await app.finish(await app.start(together, 100)) == "completed"

    play(main, mode=mode)
    assert executions.count("add") == 100


@each_mode
def test_errors_sleeps_and_retries(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(careful)
        assert await app.finish(run_id) == "completed"
        kinds = [decode_event(e).type for e in await app.store.read_events(run_id)]
        assert kinds.count(EventType.STEP_RETRYING) == 2
        assert kinds.count(EventType.TIMER_FIRED) == 1

    play(main, mode=mode)
    assert executions.count("tried") == 3


@each_mode
def test_a_timeout_gives_a_step_up(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(impatient)
        assert await app.finish(run_id) == "completed"
        kinds = [decode_event(e).type for e in await app.store.read_events(run_id)]
        assert EventType.STEP_CANCELLED in kinds
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    play(main, mode=mode)


@each_mode
def test_a_cancel_lets_the_workflow_clean_up(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(cleans_up)
        await app.dispatcher.wait_for_events(run_id, 1, 5)
        assert await send(app, MessageKind.CANCEL, run_id) is SendOutcome.ACCEPTED
        assert await app.finish(run_id) == "cancelled"

    play(main, mode=mode)
    assert executions.count("add") == 1


def test_what_a_crash_cuts_off_runs_again_and_is_named(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sums, 30)
        await app.dispatcher.wait_for_events(run_id, 10, 5)
        while app.instances.kill_all() == 0:  # noqa: ASYNC110 - one loop turn later there is one
            await asyncio.sleep(0)
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        kinds = [e.type for e in events]
        lost = kinds.count(EventType.ATTEMPT_LOST) + kinds.count(EventType.TURN_LOST)
        assert lost == 1
        assert kinds.count(EventType.STEP_COMPLETED) == 30

    play(main)


def test_ten_thousand_parallel_steps_end(play: Play) -> None:
    async def main(app: Application) -> None:
        assert await app.finish(await app.start(together, 9_999), 120) == "completed"
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    app = play(main)
    assert executions.count("add") == 9_999
    assert len(app.observer.commits) < 2_000  # results that come together share an entry


def test_a_deployment_that_breaks_pauses_its_runs_and_a_resume_goes_on(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(together, 5)
        waiting = await app.start(careful)
        await app.dispatcher.wait_for_events(run_id, 1, 5)
        app.instances.is_broken = True
        app.instances.kill_all()
        for paused in (run_id, waiting):
            await wait_for_status(app, paused, RunStatus.PAUSED)
        app.instances.is_broken = False
        for paused in (run_id, waiting):
            assert await send(app, MessageKind.RESUME, paused) is SendOutcome.ACCEPTED
            assert await app.finish(paused) == "completed"
            assert EventType.RUN_RESUMED in await kinds_of(app, paused)

    play(main)


def test_a_retry_that_came_due_while_the_run_was_paused_is_made(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(patient)
        await wait_for_kind(app, run_id, EventType.STEP_RETRYING)
        app.instances.is_broken = True  # the retry's message leaves the queue with the pause
        await wait_for_status(app, run_id, RunStatus.PAUSED)
        app.instances.is_broken = False
        await send(app, MessageKind.RESUME, run_id)
        assert await app.finish(run_id) == "completed"

    play(main)
    assert executions.count("failing once") == 2


async def pause_reason(app: Application, run_id: str) -> str:
    events = map(decode_event, await app.store.read_events(run_id, limit=100_000))
    return [str(e.meta["reason"]) for e in events if e.type is EventType.RUN_PAUSED][-1]


@each_mode
def test_a_run_goes_on_across_a_rotation_of_its_apps_keys(play: Play, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(careful)
        await wait_for_kind(app, run_id, EventType.TIMER_SET)
        app.keys.update(KeySet({**ROOTS, "k2": b"2" * 32}, "k2"))
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        sealed_with = [read_head(event.payload)[1] for event in events if event.payload]
        assert (sealed_with[0], sealed_with[-1]) == ("k1", "k2")

    play(main, mode=mode)


@each_mode
@pytest.mark.parametrize("hindrance", ["frozen", "missing", "destroyed"])
def test_a_run_whose_keys_cannot_be_used_pauses_with_the_reason(
    play: Play, mode: Mode, hindrance: str
) -> None:
    hindered = {
        "frozen": KeySet(ROOTS, "k1", is_frozen=True),
        "missing": KeySet({"k2": b"2" * 32}, "k2"),
        "destroyed": KeySet({"k2": b"2" * 32}, "k2", destroyed={"k1": 1}),
    }[hindrance]

    async def main(app: Application) -> None:
        runs = [await app.start(workflow) for workflow in (careful, patient)]
        for run_id, kind in zip(runs, (EventType.TIMER_SET, EventType.STEP_RETRYING), strict=True):
            await wait_for_kind(app, run_id, kind)
        app.keys.update(hindered)
        app.instances.kill_all()
        for run_id in runs:
            await wait_for_status(app, run_id, RunStatus.PAUSED)
            code = "keys_frozen" if hindrance == "frozen" else f"key_{hindrance}"
            assert (await pause_reason(app, run_id)).startswith(f"{code}: ")
        app.keys.update(KeySet(ROOTS, "k1"))
        for run_id in runs:
            await send(app, MessageKind.RESUME, run_id)
            assert await app.finish(run_id) == "completed"

    play(main, mode=mode)


@pytest.mark.parametrize("owner", ["gateway", "another"])
def test_another_dispatcher_takes_the_runs_over(play: Play, owner: str) -> None:
    async def main(app: Application) -> None:
        runs = [await app.start(sums, 200) for _ in range(3)]
        await app.dispatcher.wait_for_events(runs[0], 20, 5)
        await app.restart(owner, 5.0)
        for run_id in runs:
            assert await app.finish(run_id) == "completed"
            kinds = await kinds_of(app, run_id)
            assert kinds.count(EventType.STEP_COMPLETED) == 200
            assert EventType.ATTEMPT_LOST not in kinds  # an orderly stop is no fault

    play(main)
    assert executions.count("add") == 600  # what ran at the stop was waited for


def test_a_step_that_outlasts_the_drain_runs_again_and_is_named(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(nap)
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        await app.instances.started_next()
        await app.restart("another", 0.01)
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        lost = [e.meta["reason"] for e in events if e.type is EventType.ATTEMPT_LOST]
        assert lost == ["owner_changed"]

    play(main)


def test_a_dispatcher_that_drains_starts_nothing(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(many_naps)
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        while executions.count("slow") < MAX_IN_FLIGHT:
            await app.instances.started_next()
        await app.dispatcher.stop(20.0)
        assert executions.count("slow") == MAX_IN_FLIGHT  # the others wait for the next dispatcher
        await app.restart("another", 0.0)
        assert await app.finish(run_id) == "completed"
        assert EventType.ATTEMPT_LOST not in await kinds_of(app, run_id)

    play(main)
    assert executions.count("slow") == 1000


@pytest.mark.parametrize("restarts", [False, True], ids=["same owner", "another owner"])
def test_an_attempt_knows_what_the_one_before_failed_with(play: Play, restarts: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(remembers)
        await wait_for_kind(app, run_id, EventType.STEP_RETRYING)
        if restarts:
            await app.restart("another", 5.0)
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        (retrying,) = [e for e in events if e.type is EventType.STEP_RETRYING]
        assert executions == [str(retrying.meta["started_ms"])]
        sealed = events[-1].payload
        assert decode(app.keys.for_run(run_id).open(sealed, "result")) == "ValueError('first')"

    play(main)


class FailingReads(MemoryStore):
    """A store whose logs cannot be read now and then."""

    failures = 0

    async def read_events(self, run_id: str, *, start: int = 0, limit: int = 1000) -> list[bytes]:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("a test's")
        return await super().read_events(run_id, start=start, limit=limit)


def test_a_replay_outlives_a_store_that_is_away() -> None:
    store = FailingReads()

    async def main(app: Application) -> None:
        run_id = await app.start(sums, 5)
        await app.dispatcher.wait_for_events(run_id, 4, 5)
        store.failures = 3
        while app.instances.kill_all() == 0:  # noqa: ASYNC110 - one loop turn later there is one
            await asyncio.sleep(0)
        assert await app.finish(run_id) == "completed"
        assert store.failures == 0

    run_application(store, main)
