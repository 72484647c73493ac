"""Upgrading code under live runs: a divergence pauses the run, and a fix lets it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

import fluvial
from fluvial.codec import decode, encode
from fluvial.events import Event, EventType, decode_event
from fluvial.registry import Registry
from fluvial.workflows import Workflow
from fluvial_queue import open_store
from fluvial_queue.contract import RunRecord, RunStatus, SendOutcome
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.messages import Message, MessageKind
from tests.integration.in_process import Application, Ground

OLD, FIXED = "dpl_old", "dpl_fixed"
TOKEN = "go on"
executions: list[str] = []
released: list[asyncio.Event] = []  # of the loop of the test that runs

Body = Callable[[], Coroutine[Any, Any, Any]]
Play = Callable[[Callable[[Application], Awaitable[None]]], None]


@fluvial.step(name="upgrading.charge")
async def charge(what: str) -> str:
    executions.append(what)
    return f"charged {what}"


@fluvial.step(name="upgrading.ship")
async def ship(what: str) -> str:
    executions.append(what)
    return f"shipped {what}"


@fluvial.step(name="upgrading.wait")
async def wait() -> str:
    executions.append("wait")
    await released[0].wait()
    return "waited"


def code(body: Body) -> Registry:
    """Return a deployment's functions: the steps, and `body` as the workflow `fulfil`."""
    functions = Registry()
    for step in (charge, ship, wait):
        functions.add_step(step)
    functions.add_workflow(Workflow(body, "fulfil"))
    return functions


@pytest.fixture
def play(ground: Ground) -> Play:
    def play(main: Callable[[Application], Awaitable[None]]) -> None:
        executions.clear()

        async def body() -> None:
            released[:] = [asyncio.Event()]
            store = open_store(ground.url)
            await store.open()
            application = Application(store, mode=ground.mode)
            await application.dispatcher.start()
            try:
                async with asyncio.timeout(30):
                    await main(application)
            finally:
                await application.dispatcher.stop(1.0)
                await store.close()

        asyncio.run(body())

    return play


async def start(app: Application, body: Body) -> str:
    """Start a run of `body` on the old deployment."""
    app.instances.code[OLD] = code(body)
    return await app.start(app.instances.code[OLD].workflows["fulfil"], deployment=OLD)


async def record(app: Application, run_id: str) -> RunRecord:
    found = await app.store.read_run(run_id)
    assert found is not None
    return found


async def log(app: Application, run_id: str) -> list[Event]:
    return [decode_event(e) for e in await app.store.read_events(run_id, limit=10_000)]


async def wait_for(app: Application, run_id: str, kind: EventType, count: int = 1) -> Event:
    """Wait until the log has that many events of a kind; return the last."""
    while True:
        events = await log(app, run_id)
        found = [event for event in events if event.type is kind]
        if len(found) >= count:
            return found[-1]
        await app.dispatcher.wait_for_events(run_id, len(events), 20)


async def resume(app: Application, run_id: str, deployment: str | None) -> None:
    meta = {"by": "test"} if deployment is None else {"by": "test", "deployment": deployment}
    body = Message(MessageKind.RESUME, run_id, meta=meta).encode()
    assert await app.store.send(run_id, body) is SendOutcome.ACCEPTED


async def send_hook(app: Application, run_id: str) -> None:
    payload = app.keys.for_run(run_id).seal(encode("now"), "hook", TOKEN)
    sending = Payload(run_id=run_id, token=TOKEN, resume_id="r", sealed=payload)
    assert await send_payload(app.store, sending) is SendOutcome.ACCEPTED


async def result(app: Application, run_id: str) -> Any:
    assert await app.finish(run_id) == "completed", [e.type.name for e in await log(app, run_id)]
    ended = (await log(app, run_id))[-1]
    return decode(app.keys.for_run(run_id).open(ended.payload, "result"))


async def charged_then_waiting() -> list[str]:
    first = await charge("book")
    async with fluvial.Hook(str, token=TOKEN) as hook:
        await hook
    return [first, await ship("book")]


async def shipped_then_waiting() -> list[str]:
    first = await ship("book")
    async with fluvial.Hook(str, token=TOKEN) as hook:
        await hook
    return [first, await charge("book")]


def test_a_divergence_pauses_with_a_diff_and_goes_on_where_it_is_fixed(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await start(app, charged_then_waiting)
        await wait_for(app, run_id, EventType.HOOK_OPENED)
        # The same deployment asks for something else: its code is not deterministic.
        app.instances.code[OLD] = code(shipped_then_waiting)
        app.instances.kill_all()
        await send_hook(app, run_id)
        paused = await wait_for(app, run_id, EventType.RUN_PAUSED)
        before = await record(app, run_id)

        assert before.status is RunStatus.PAUSED
        assert "- recorded: STEP_SCHEDULED upgrading.charge (operation 1)" in paused.meta["reason"]
        assert "+ now:      STEP_SCHEDULED upgrading.ship (operation 1)" in paused.meta["reason"]
        assert "test_upgrading.py" in paused.meta["reason"]
        assert before.reason == paused.meta["reason"]
        assert paused.meta["code"] == "diverged"

        # Where it is, it only diverges again, and nothing is lost by that.
        await resume(app, run_id, None)
        await wait_for(app, run_id, EventType.RUN_PAUSED, count=2)
        app.instances.code[FIXED] = code(charged_then_waiting)
        await resume(app, run_id, FIXED)

        assert await result(app, run_id) == ["charged book", "shipped book"]
        after = await record(app, run_id)
        resumed = [e.meta for e in await log(app, run_id) if e.type is EventType.RUN_RESUMED]
        assert (before.deployment, after.deployment) == (OLD, FIXED)
        assert after.reason == ""
        assert resumed == [{"by": "test"}, {"by": "test", "deployment": FIXED}]
        assert executions == ["book", "book"]  # what was done before is not done again

    play(main)


def test_a_moved_run_stays_where_it_is_for_the_next_owner(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await start(app, charged_then_waiting)
        await wait_for(app, run_id, EventType.HOOK_OPENED)
        app.instances.code[OLD] = code(shipped_then_waiting)
        app.instances.kill_all()
        await send_hook(app, run_id)
        await wait_for(app, run_id, EventType.RUN_PAUSED)
        app.instances.code[FIXED] = code(charged_then_waiting)
        await resume(app, run_id, FIXED)
        await wait_for(app, run_id, EventType.RUN_RESUMED)
        await app.restart("another", 1.0)

        assert await result(app, run_id) == ["charged book", "shipped book"]
        assert (await record(app, run_id)).deployment == FIXED

    play(main)


def test_a_step_under_way_ends_where_it_began_when_its_run_moves(play: Play) -> None:
    async def old() -> list[str]:
        return list(await asyncio.gather(wait(), _charged_late()))

    async def broken() -> list[str]:
        return list(await asyncio.gather(wait(), _shipped_late()))

    async def fixed() -> list[str]:
        first, second = await asyncio.gather(wait(), _charged_late())
        return [first, second, "fixed"]

    async def main(app: Application) -> None:
        run_id = await start(app, old)
        await wait_for(app, run_id, EventType.HOOK_OPENED)
        app.instances.code[OLD] = code(broken)
        app.instances.evict_all()
        await send_hook(app, run_id)
        await wait_for(app, run_id, EventType.RUN_PAUSED)
        app.instances.code[FIXED] = code(fixed)
        await resume(app, run_id, FIXED)
        await wait_for(app, run_id, EventType.RUN_RESUMED)
        released[0].set()

        assert await result(app, run_id) == ["waited", "charged late", "fixed"]
        assert executions.count("wait") == 1

    play(main)


async def _charged_late() -> str:
    done = await charge("late")
    async with fluvial.Hook(str, token=TOKEN) as hook:
        await hook
    return done


async def _shipped_late() -> str:
    done = await ship("late")
    async with fluvial.Hook(str, token=TOKEN) as hook:
        await hook
    return done


def test_a_resume_of_a_run_that_goes_on_moves_nothing(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await start(app, charged_then_waiting)
        await wait_for(app, run_id, EventType.HOOK_OPENED)
        await resume(app, run_id, FIXED)
        await send_hook(app, run_id)

        assert await result(app, run_id) == ["charged book", "shipped book"]
        assert (await record(app, run_id)).deployment == OLD
        assert EventType.RUN_RESUMED not in [event.type for event in await log(app, run_id)]

    play(main)


async def patched_then_waiting() -> list[str]:
    way = "fast" if fluvial.patched("fast lane") else "slow"
    first = await charge("book")
    async with fluvial.Hook(str, token=TOKEN) as hook:
        await hook
    last = await (charge("gift") if fluvial.patched("gift") else ship("book"))
    return [way, first, last, await ship(way)]


def test_a_moved_run_takes_the_patches_that_lie_before_it(play: Play) -> None:
    async def main(app: Application) -> None:
        run_id = await start(app, charged_then_waiting)
        await wait_for(app, run_id, EventType.HOOK_OPENED)
        app.instances.code[OLD] = code(shipped_then_waiting)
        app.instances.kill_all()
        await send_hook(app, run_id)
        await wait_for(app, run_id, EventType.RUN_PAUSED)
        app.instances.code[FIXED] = code(patched_then_waiting)
        await resume(app, run_id, FIXED)

        assert await result(app, run_id) == ["slow", "charged book", "charged gift", "shipped slow"]
        taken = [e.meta["patch"] for e in await log(app, run_id) if e.type is EventType.PATCHED]
        assert taken == ["gift"]

    play(main)
