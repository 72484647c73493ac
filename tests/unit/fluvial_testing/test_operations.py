"""What deployed code asks of the platform is answered in an environment, too."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import fluvial
from fluvial import StartOptions
from fluvial.errors import InvalidRequestError, RunClosedError, SingletonError
from fluvial.registry import registry
from fluvial.stream_reading import StreamReset
from fluvial.testing import Environment, Mode, SyncEnvironment
from fluvial_queue.kit import open_engine
from tests.unit.fluvial_testing.shop import describe, patient, storyteller


def test_a_stream_is_read_to_its_end(mode: Mode) -> None:
    async def test() -> tuple[list[str], int, list[str]]:
        async with Environment(mode=mode, engine=open_engine) as env:
            run = await env.start(storyteller, "o-1")
            entries = [entry async for entry in run.stream("words").entries()]
            resets = sum(isinstance(entry, StreamReset) for entry in entries)
            words = [word async for word in run.stream("words", type=str)]
            return words, resets, [info.name for info in await run.streams()]

    assert asyncio.run(test()) == (["the", "story", "of", "o-1"], 1, ["words"])


def test_what_was_written_so_far_is_at_hand(env: SyncEnvironment) -> None:
    run = env.start(storyteller, "o-1")
    env.until(run, step=describe)

    assert run.written("words") == ["the", "story"]  # and then it has failed
    env.advance("1s")
    assert run.written("words") == ["the", "story", "of", "o-1"]
    assert run.written("other") == []
    assert run.state() == {"order": "o-1"}


def test_state_and_tags_of_a_run_are_seen(mode: Mode) -> None:
    async def test() -> None:
        async with Environment(mode=mode, engine=open_engine) as env:
            run = await env.start(storyteller, "o-1")
            await env.settle()
            assert await run.state() == {"order": "o-1"}
            await run.set_tags({"checked": "yes"})
            assert await run.result() == 4
            assert await run.state() == {"order": "o-1", "words": 4}
            await run.refresh()
            assert run.tags == {"order": "o-1", "checked": "yes"}

    asyncio.run(test())


def test_starts_wait_for_their_time_and_end_at_their_deadline(env: SyncEnvironment) -> None:
    at = env.now + timedelta(days=3)
    later = env.start(storyteller, "o-1", options=StartOptions(at=at))
    short = env.start(patient, options=StartOptions(deadline="7 d", tags={"a": "b"}))

    assert later.result() == 4
    assert later.log[0].at == at
    with pytest.raises(fluvial.RunCancelledError):
        short.result()
    assert env.now - at < timedelta(days=5)


def test_a_singleton_is_alone(env: SyncEnvironment) -> None:
    only = StartOptions(singleton="one")
    first = env.start(patient, options=only)

    with pytest.raises(SingletonError):
        env.start(patient, options=only)
    same = env.start(patient, options=StartOptions(singleton="one", on_conflict="existing"))
    assert same.id == first.id
    other = env.start(patient, options=StartOptions(singleton="one", on_conflict="replace"))
    assert other.id != first.id

    with pytest.raises(fluvial.RunCancelledError):
        first.result()
    assert other.result() == "2031-01-01"


def test_runs_are_listed_and_steered(mode: Mode) -> None:
    async def test() -> None:
        async with Environment(mode=mode, engine=open_engine) as env:
            tagged = StartOptions(tags={"team": "a"})
            sleeper = await env.start(patient, options=tagged)
            await env.start(patient)
            await env.settle()
            await sleeper.pause("a look at it")
            await env.settle()
            (paused,) = [run async for run in fluvial.list_runs(status="paused")]
            assert (paused.id, paused.workflow) == (sleeper.id, patient.name)
            await paused.resume()
            await paused.wake()
            await paused.retry()
            assert await sleeper.result()
            found = [run async for run in fluvial.list_runs(workflow=patient, tags={"team": "a"})]
            assert [(run.id, run.status) for run in found] == [(sleeper.id, "completed")]
            children = [run async for run in fluvial.list_runs(parent=sleeper)]
            assert children == []
            with pytest.raises(RunClosedError):
                await found[0].pause()
            with pytest.raises(InvalidRequestError, match="no such status: gone; known: cancelled"):
                _ = [run async for run in fluvial.list_runs(status=["gone"])]

    asyncio.run(test())


def test_what_cannot_be_asked_is_refused(env: SyncEnvironment) -> None:
    @fluvial.workflow(name="shop.forgotten")
    async def forgotten() -> None: ...

    run = env.start(patient)
    run.result()
    with pytest.raises(RunClosedError, match="has ended"):
        run.terminate()

    registry.workflows.pop("shop.forgotten")
    with pytest.raises(InvalidRequestError, match=r"no workflow 'shop\.forgotten'"):
        env.start(forgotten)


def test_progress_outlives_a_crash_of_the_instance(mode: Mode) -> None:
    seen: list[object] = []

    @fluvial.step(name="shop.copying", retries=1, backoff=1)
    async def copying() -> int:
        seen.append(fluvial.metadata().progress)
        fluvial.heartbeat(len(seen))
        if len(seen) == 1:
            raise ConnectionError("half way")
        return len(seen)

    @fluvial.workflow(name="shop.copy")
    async def copy() -> int:
        return await copying()

    with SyncEnvironment(mode=mode, engine=open_engine) as env:
        assert env.start(copy).result() == 2

    assert seen == [None, 1]
