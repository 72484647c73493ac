"""Talking to live runs while what they live in dies: every question has one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import fluvial
from fluvial.errors import AskRefusedError, AskUnansweredError, RunClosedError
from fluvial.events import EventType
from fluvial_queue import open_store
from fluvial_queue.messages import MessageKind
from tests.integration.streaming import Streaming

QUESTIONS = 40
Play = Callable[[Callable[[Streaming], Awaitable[None]]], None]


@fluvial.step(name="talking.twice")
async def twice(number: int) -> int:
    await asyncio.sleep(0.001)
    return number * 2


@fluvial.workflow(name="talking.doubler")
async def doubler() -> int:
    answered = 0
    async with fluvial.Hook(int, name="double") as hook:
        async for request in hook.requests():
            if request.value < 0:
                request.refuse("that is all")
                break
            request.answer(await twice(request.value))
            answered += 1
    return answered


@fluvial.workflow(name="talking.leaver")
async def leaver() -> None:
    async with fluvial.Hook(int, name="double"):
        await fluvial.Hook(str, name="leave")


@pytest.fixture(params=["memory", "valkey"])
def play(request: pytest.FixtureRequest) -> Play:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey_url")

    def play_on(main: Callable[[Streaming], Awaitable[None]]) -> None:
        async def body() -> None:
            store = open_store(url)
            await store.open()
            app = Streaming(store)
            await app.dispatcher.start()
            try:
                async with asyncio.timeout(60):
                    await main(app)
            finally:
                await app.dispatcher.stop(1.0)
                await store.close()

        asyncio.run(body())

    return play_on


def test_every_question_is_answered_once_whatever_dies(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(doubler)
        asking = [
            asyncio.create_task(app.run(run_id).ask("double", n, timeout=50, resume_id=f"q{n}"))
            for n in range(QUESTIONS)
        ]
        for number in range(1, 6):
            await app.wait_for_kind(run_id, EventType.HOOK_ANSWERED, number * QUESTIONS // 6)
            app.instances.kill_all()
        assert await asyncio.gather(*asking) == [2 * n for n in range(QUESTIONS)]
        again = await app.run(run_id).ask("double", 7, resume_id="q7")
        assert again == 14  # the same question: the run does not hear it again
        with pytest.raises(AskRefusedError, match="that is all"):
            await app.run(run_id).ask("double", -1)
        assert await app.result(run_id) == QUESTIONS
        with pytest.raises(RunClosedError):
            await app.run(run_id).ask("double", 1)

    play(main)


def test_who_asks_a_run_that_is_ended_hears_it(play: Play) -> None:
    async def main(app: Streaming) -> None:
        run_id = await app.start(leaver)
        asking = asyncio.create_task(app.run(run_id).ask("double", 1, timeout=50))
        await app.wait_for_kind(run_id, EventType.HOOK_RECEIVED)
        await app.send(MessageKind.TERMINATE, run_id)
        with pytest.raises(AskUnansweredError, match="terminated"):
            await asking

    play(main)
