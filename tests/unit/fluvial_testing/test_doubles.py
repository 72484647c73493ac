"""Mocks answer in the place of a step; every execution of a step is recorded."""

from __future__ import annotations

import asyncio
import operator
from datetime import timedelta

import pytest

import fluvial
from fluvial import step, workflow
from fluvial.errors import InvalidRequestError
from fluvial.events import EventType
from fluvial.testing import SyncEnvironment, call


@step(name="doubles.ask", retries=1, backoff=5, timeout="10s")
async def ask(question: str, *, polite: bool = False) -> str:
    return f"real {question}"


@step(name="doubles.tell")
def tell(text: str) -> str:
    return f"told {text}"


@workflow(name="doubles.talk")
async def talk(question: str) -> str:
    return await tell(await ask(question, polite=True))


@workflow(name="doubles.impatient")
async def impatient() -> str:
    try:
        async with asyncio.timeout(60):
            return await tell("slowly")
    except TimeoutError:
        return "gave up"


def test_steps_run_for_real_and_are_recorded(env: SyncEnvironment) -> None:
    assert env.start(talk, "why").result() == "told real why"

    assert env.calls(ask) == [call("why", polite=True)]
    assert env.calls(tell) == [call("real why")]
    assert repr(env.calls(ask)[0]) == "call('why', polite=True)"


def test_a_mock_returns_a_value(env: SyncEnvironment) -> None:
    env.mock(ask, returns="mocked")

    assert env.start(talk, "why").result() == "told mocked"


def test_a_mock_calls_a_function(env: SyncEnvironment) -> None:
    async def louder(text: str) -> str:
        return text.upper()

    env.mock(ask, does="{} {polite}".format)
    env.mock(tell, does=louder)

    assert env.start(talk, "why").result() == "WHY TRUE"


def test_a_mock_has_one_answer_per_call(env: SyncEnvironment) -> None:
    env.mock(ask, each=[ValueError("first"), "second"])

    assert env.start(talk, "why").result() == "told second"
    with pytest.raises(fluvial.RunFailedError, match="has 2 results, and no more"):
        env.start(talk, "why").result()


def test_a_mock_without_more_returns_none(env: SyncEnvironment) -> None:
    env.mock(tell)

    assert env.start(talk, "why").result() is None


def test_a_mock_takes_virtual_time(env: SyncEnvironment) -> None:
    env.mock(tell, returns="late", takes="59s")
    assert env.start(impatient).result() == "late"

    env.mock(tell, returns="too late", takes="61s")
    assert env.start(impatient).result() == "gave up"


def test_a_mock_hangs_until_its_timeout(env: SyncEnvironment) -> None:
    env.mock(ask, hangs=True)
    run = env.start(talk, "why")

    with pytest.raises(fluvial.RunFailedError, match="took longer than 10000 ms"):
        run.result()
    assert len(run.log.of(EventType.STEP_RETRYING)) == 1


def test_a_step_that_hangs_without_a_timeout_is_given_up(env: SyncEnvironment) -> None:
    env.mock(tell, hangs=True)

    assert env.start(impatient).result() == "gave up"


def test_a_step_is_itself_again(env: SyncEnvironment) -> None:
    env.mock(ask, returns="mocked")
    env.restore(ask)

    assert env.start(talk, "why").result() == "told real why"


@workflow(name="doubles.child")
async def child(number: int) -> int:
    return number


@workflow(name="doubles.parent")
async def parent(count: int) -> list[int]:
    runs = [await fluvial.start(child, number) for number in range(count)]
    return [await run.result() for run in runs]


def test_a_child_workflow_is_mocked(env: SyncEnvironment) -> None:
    began = env.now
    env.mock(child, does=operator.neg, takes="1h")

    assert env.start(parent, 3).result() == [0, -1, -2]
    assert env.calls(child) == [call(0), call(1), call(2)]
    assert env.now - began == timedelta(hours=1)

    env.restore(child)
    assert env.start(parent, 2).result() == [0, 1]


def test_a_child_workflow_fails_or_hangs(env: SyncEnvironment) -> None:
    env.mock(child, raises=ValueError("no child"))
    with pytest.raises(fluvial.RunFailedError, match="no child"):
        env.start(parent, 1).result()

    env.mock(child, hangs=True)
    run = env.start(parent, 1)
    env.advance("9 d")
    assert run.status == "running"


def test_a_mock_does_one_thing(env: SyncEnvironment) -> None:
    with pytest.raises(InvalidRequestError, match="does one of"):
        env.mock(ask, returns=1, raises=ValueError)
    with pytest.raises(InvalidRequestError, match="takes no each"):
        env.mock(child, each=[1, 2])


def test_a_mock_concerns_its_environment_alone(env: SyncEnvironment) -> None:
    env.mock(ask, returns="mocked")

    assert asyncio.run(ask("why")) == "real why"
