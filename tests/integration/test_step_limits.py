"""Deadlines, pauses of used-up steps, and at-most-once steps on the real path."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import fluvial
from fluvial.codec import decode
from fluvial.events import Event, EventType, decode_event
from fluvial.testing import Mode
from fluvial_queue import open_store
from fluvial_queue.contract import RunStatus, SendOutcome
from fluvial_queue.messages import MessageKind
from tests.integration.in_process import Application, Ground, Main, run_application
from tests.integration.test_durable_path import (
    Play,
    kinds_of,
    send,
    wait_for_kind,
    wait_for_status,
)

bodies: list[str] = []


@fluvial.step(name="limits.hangs", deadline=0.2)
async def hangs() -> None:
    await asyncio.get_running_loop().create_future()


@fluvial.step(name="limits.fails", deadline="3s", backoff="10s", retries=5)
async def fails() -> None:
    raise ConnectionError("down")


@fluvial.step(name="limits.quick", deadline="1h")
async def quick() -> str:
    return "done"


@fluvial.step(name="limits.waits")
async def waits() -> None:
    await asyncio.get_running_loop().create_future()


@fluvial.step(name="limits.needs_mending", retries=1, backoff=0, exhausted="pause")
async def needs_mending() -> int:
    bodies.append("attempt")
    if len(bodies) < 4:
        raise ConnectionError("down")
    return fluvial.metadata().attempt


@fluvial.step(name="limits.pays", at_most_once=True)
async def pays(seconds: float) -> str:
    bodies.append("paid")
    await asyncio.sleep(seconds)
    return "paid"


@fluvial.step(name="limits.copies", heartbeat="1h")
async def copies() -> Any:
    bodies.append("begun")
    if len(bodies) == 1:
        fluvial.heartbeat({"rows": 7})
        await asyncio.get_running_loop().create_future()
    return fluvial.metadata().progress


@fluvial.workflow(name="limits.copying")
async def copying() -> Any:
    return await copies()


async def _told(call: Any) -> list[Any]:
    try:
        return [await call]
    except fluvial.StepFailedError as error:
        return [error.failure, error.attempts, type(error.__cause__).__name__]


@fluvial.workflow(name="limits.told")
async def told(which: str) -> list[Any]:
    steps: dict[str, Callable[[], Any]] = {"hangs": hangs, "fails": fails, "mended": needs_mending}
    return await _told(steps[which]())


@fluvial.workflow(name="limits.paying")
async def paying(seconds: float) -> list[Any]:
    return await _told(pays(seconds))


@fluvial.workflow(name="limits.goes_on")
async def goes_on() -> None:
    await quick()
    await waits()


@pytest.fixture
def play(ground: Ground) -> Play:
    def play(main: Main, *, mode: Mode | None = None) -> Application:
        bodies.clear()
        return run_application(open_store(ground.url), main, mode=mode or ground.mode)

    return play


async def events_of(app: Application, run_id: str) -> list[Event]:
    return [decode_event(e) for e in await app.store.read_events(run_id)]


async def result_of(app: Application, run_id: str) -> Any:
    assert await app.finish(run_id) == "completed"
    last = (await events_of(app, run_id))[-1]
    return decode(app.keys.for_run(run_id).open(last.payload, "result"))


@pytest.mark.parametrize(
    ("which", "seen"),
    [("hangs", ["deadline", 1, "TimeoutError"]), ("fails", ["deadline", 1, "ConnectionError"])],
)
def test_a_step_ends_at_its_deadline(play: Play, which: str, seen: list[Any]) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(told, which)
        assert await result_of(app, run_id) == seen
        assert EventType.ATTEMPT_LOST not in await kinds_of(app, run_id)
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    play(main)


def test_a_step_that_nobody_can_execute_ends_at_its_deadline_all_the_same(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(told, "hangs")
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        app.instances.is_broken = True
        app.instances.kill_all()
        await wait_for_status(app, run_id, RunStatus.PAUSED)
        await wait_for_kind(app, run_id, EventType.STEP_FAILED)
        app.instances.is_broken = False
        await send(app, MessageKind.RESUME, run_id)
        assert await result_of(app, run_id) == ["deadline", 1, "TimeoutError"]
        (failed,) = [e for e in await events_of(app, run_id) if e.type is EventType.STEP_FAILED]
        assert not failed.payload

    play(main)


def test_a_step_that_has_ended_leaves_no_timer_behind(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(goes_on)
        while (await kinds_of(app, run_id)).count(EventType.STEP_SCHEDULED) < 2:
            await app.dispatcher.wait_for_events(run_id, len(await kinds_of(app, run_id)), 20)
        _, timers = await app.store.depth(range(app.store.partitions))
        assert timers == 0

    play(main)


def test_a_used_up_step_pauses_its_run_and_a_resume_gives_it_new_attempts(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(told, "mended")
        await wait_for_status(app, run_id, RunStatus.PAUSED)
        record = await app.store.read_run(run_id)
        assert record is not None
        assert record.reason == (
            "step limits.needs_mending has used up its attempts (2 so far): exception"
        )
        assert (await events_of(app, run_id))[-1].meta["code"] == "exhausted"
        assert await send(app, MessageKind.RESUME, run_id) is SendOutcome.ACCEPTED
        assert await result_of(app, run_id) == [4]
        attempts = [e.meta["attempt"] for e in await events_of(app, run_id) if "attempt" in e.meta]
        assert attempts == [1, 2, 3, 4]

    play(main)


def test_an_at_most_once_step_that_was_cut_off_is_not_repeated(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(paying, 30.0)
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        while not bodies:
            await app.instances.started_next()
        app.instances.kill_all()
        assert await result_of(app, run_id) == ["interrupted", 1, "StepInterruptedError"]

    play(main)
    assert bodies == ["paid"]


def test_a_new_owner_does_not_repeat_what_an_earlier_one_may_have_started(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(paying, 30.0)
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        await app.instances.started_next()
        await app.restart("another", 0.01)
        assert await result_of(app, run_id) == ["interrupted", 1, "StepInterruptedError"]
        (failed,) = [e for e in await events_of(app, run_id) if e.type is EventType.STEP_FAILED]
        assert failed.meta["cause"] == "owner_changed"

    play(main)
    assert bodies == ["paid"]


def test_an_orderly_stop_interrupts_nothing(play: Play) -> None:
    async def main(app: Application) -> None:
        runs = [await app.start(paying, 0.1) for _ in range(3)]
        await wait_for_kind(app, runs[0], EventType.STEP_SCHEDULED)
        await app.restart("another", 5.0)
        for run_id in runs:
            assert await result_of(app, run_id) == ["paid"]

    play(main)
    assert len(bodies) == 3


@pytest.mark.parametrize("restarts", [False, True], ids=["same owner", "another owner"])
def test_an_execution_that_is_cut_off_leaves_its_progress(play: Play, restarts: bool) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(copying)
        await wait_for_kind(app, run_id, EventType.STEP_SCHEDULED)
        while not app.instances.reported:
            await app.instances.started_next()
        app.instances.is_broken = restarts
        app.instances.kill_all()
        if restarts:
            await wait_for_status(app, run_id, RunStatus.PAUSED)
            await app.restart("another", 5.0)
            app.instances.is_broken = False
            await send(app, MessageKind.RESUME, run_id)
        assert await result_of(app, run_id) == {"rows": 7}
        (lost,) = [e for e in await events_of(app, run_id) if e.type is EventType.ATTEMPT_LOST]
        assert b"rows" not in lost.meta["progress"]

    play(main)
