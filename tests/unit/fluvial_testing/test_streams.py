"""Streams in the test kit: threads, early ends, refusals, and crashes at every point."""

from __future__ import annotations

from typing import Any

import pytest

import fluvial
from fluvial.errors import StreamClosedError
from fluvial.testing import Environment, SyncEnvironment, enumerate_crashes
from fluvial_queue.kit import open_engine


@fluvial.step(name="kit.say")
async def say(words: list[str]) -> int:
    out = fluvial.stream("words")
    for word in words:
        await out.write(word)
    return len(words)


@fluvial.step(name="kit.close_early")
def close_early(word: str) -> None:
    with fluvial.blocking_stream("words") as out:
        out.write(word)


@fluvial.workflow(name="kit.speech")
async def speech(words: list[str]) -> int:
    said = await say(words)
    await fluvial.sleep("1h")
    return said + await say(["the", "end"])


@fluvial.workflow(name="kit.short")
async def short() -> None:
    await close_early("hello")
    await fluvial.sleep("1h")
    await say(["more"])


async def words_of(run: fluvial.Run[Any]) -> list[str]:
    return [word async for word in run.stream("words", type=str)]


def test_a_stream_that_a_thread_has_closed_ends_before_its_run(env: SyncEnvironment) -> None:
    run = env.start(short)

    assert env.wait(words_of(run.run)) == ["hello"]
    assert run.status == "running"
    with pytest.raises(fluvial.RunFailedError, match=f"{StreamClosedError.__name__}.*was closed"):
        run.result()


async def read_speech(env: Environment) -> object:
    run = await env.start(speech, ["a", "b"])
    return await run.result(), await words_of(run)


def test_a_stream_has_each_chunk_once_whatever_dies() -> None:
    with SyncEnvironment(engine=open_engine) as env:
        report = env.wait(enumerate_crashes(read_speech, engine=open_engine))

    assert report.outcome == (4, ["a", "b", "the", "end"])
