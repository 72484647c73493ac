"""Dispatcher, sequencer, runtime and store together, in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import fluvial
from fluvial.events import EventType, decode_event
from fluvial_queue.contract import SendOutcome
from fluvial_queue.memory import MemoryStore
from fluvial_queue.messages import Message, MessageKind
from tests.integration.in_process import Application

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


@fluvial.workflow(name="path.cleans_up")
async def cleans_up() -> str:
    try:
        await slow(30.0)
    finally:
        await add(1, 2)
    return "unexpected"


Main = Callable[[Application], Awaitable[None]]


def play(main: Main, *, keep_live: bool = True) -> Application:
    executions.clear()

    async def body() -> Application:
        store = MemoryStore()
        await store.open()
        application = Application(store, keep_live=keep_live)
        await application.dispatcher.start()
        try:
            await main(application)
        finally:
            await application.dispatcher.stop(1.0)
            await store.close()
        return application

    return asyncio.run(body())


both = pytest.mark.parametrize("keep_live", [True, False], ids=["live", "replayed"])


@both
def test_a_sequence_of_steps(keep_live: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sums, 10)
        assert await app.finish(run_id) == "completed"
        events = [decode_event(e) for e in await app.store.read_events(run_id)]
        done = [e for e in events if e.type is EventType.STEP_COMPLETED]
        assert len(done) == 10
        assert all(e.meta["attempt"] == 1 and e.meta["invocation"] for e in done)
        assert len({e.meta["invocation"] for e in done}) == 10

    app = play(main, keep_live=keep_live)
    if keep_live:
        assert len(app.observer.commits) == 12  # start, first turn, one for each step
        assert app.observer.replays == 0


@both
def test_parallel_steps(keep_live: bool) -> None:
    async def main(app: Application) -> None:
        assert await app.finish(await app.start(together, 100)) == "completed"

    play(main, keep_live=keep_live)
    assert executions.count("add") == 100


@both
def test_errors_sleeps_and_retries(keep_live: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(careful)
        assert await app.finish(run_id) == "completed"
        kinds = [decode_event(e).type for e in await app.store.read_events(run_id)]
        assert kinds.count(EventType.STEP_RETRYING) == 2
        assert kinds.count(EventType.TIMER_FIRED) == 1

    play(main, keep_live=keep_live)
    assert executions.count("tried") == 3


@both
def test_a_timeout_gives_a_step_up(keep_live: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(impatient)
        assert await app.finish(run_id) == "completed"
        kinds = [decode_event(e).type for e in await app.store.read_events(run_id)]
        assert EventType.STEP_CANCELLED in kinds
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    play(main, keep_live=keep_live)


@both
def test_a_cancel_lets_the_workflow_clean_up(keep_live: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(cleans_up)
        await app.dispatcher.wait_for_events(run_id, 1, 5)
        body = Message(MessageKind.CANCEL, run_id, meta={"reason": "test"}).encode()
        assert await app.store.send(run_id, body) is SendOutcome.ACCEPTED
        assert await app.finish(run_id) == "cancelled"

    play(main, keep_live=keep_live)
    assert executions.count("add") == 1


def test_what_a_crash_cuts_off_runs_again_and_is_named() -> None:
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
