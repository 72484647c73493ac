"""Deadlines of steps, attempts that are used up, and steps that run at most once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.context import metadata
from fluvial.encryption import AppKeys
from fluvial.errors import (
    FatalError,
    InvalidRequestError,
    RetryableError,
    StepFailedError,
    StepInterruptedError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import StepHistory, StepRequest
from fluvial.registry import registry
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.steps import Step, step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

RUN = "run_0000000000000000000000000a"
NOW_MS = 50_000


def attempt(
    keys: AppKeys,
    the_step: Step[[], Any],
    *,
    attempt: int = 1,
    expires_ms: int = 0,
    history: StepHistory | None = None,
) -> Event:
    """Execute one attempt that is sent at NOW_MS."""

    async def main() -> Event:
        binding = Binding("orders", RUN, "step_input", 7)
        request = StepRequest(
            run_id=RUN,
            app="orders",
            workflow="main",
            step=the_step.name,
            id=7,
            attempt=attempt,
            invocation="inv_x",
            timeout_ms=the_step.settings.timeout_ms,
            now_ms=NOW_MS,
            carry=None,
            input=keys.seal(binding, encode_call((), {})),
            history=history,
            expires_ms=expires_ms,
        )
        (event,) = (await LiveRuns(registry, keys).step(request)).events
        return decode_event(event)

    return asyncio.run(main())


def test_an_attempt_gets_at_most_what_is_left_until_the_deadline(keys: AppKeys) -> None:
    @step(timeout="1h", deadline="2h")
    async def slow() -> None:
        await asyncio.get_running_loop().create_future()

    event = attempt(keys, slow, expires_ms=NOW_MS + 10)

    assert event.type is EventType.STEP_FAILED
    assert event.meta["reason"] == "deadline"


def test_an_attempt_that_comes_after_the_deadline_does_not_start(keys: AppKeys) -> None:
    started: list[int] = []

    @step(deadline="1s")
    async def late() -> None:
        started.append(1)

    event = attempt(keys, late, attempt=2, expires_ms=NOW_MS)

    assert (event.type, event.meta["reason"]) == (EventType.STEP_FAILED, "deadline")
    assert not started


def test_a_timeout_before_the_deadline_is_a_timeout(keys: AppKeys) -> None:
    @step(timeout="10ms", deadline="1h", backoff=0)
    async def slow() -> None:
        await asyncio.get_running_loop().create_future()

    event = attempt(keys, slow, expires_ms=NOW_MS + 3_600_000)

    assert (event.type, event.meta["reason"]) == (EventType.STEP_RETRYING, "timeout")


@pytest.mark.parametrize(("left_ms", "is_retried"), [(60_000, False), (60_100, True)])
def test_no_attempt_is_planned_beyond_the_deadline(
    keys: AppKeys, left_ms: int, is_retried: bool
) -> None:
    @step(deadline="2m")
    async def busy() -> None:
        raise RetryableError("later", retry_after="1m")

    event = attempt(keys, busy, expires_ms=NOW_MS + left_ms)

    assert (event.type is EventType.STEP_RETRYING) == is_retried
    if not is_retried:
        assert event.meta["reason"] == "deadline"


def test_a_workflow_sees_the_deadline_and_the_last_error(play: Play) -> None:
    @step(deadline="3s", retries=100, backoff=0.1)
    async def flaky() -> None:
        raise ConnectionError(f"attempt {metadata().attempt}")

    @workflow
    async def main() -> list[Any]:
        try:
            await flaky()
        except StepFailedError as error:
            return [error.failure, error.attempts, error.reason]
        return []

    # Retries come a second apart here: after 1, 1001 and 2001 ms; the next one would be too late.
    assert play(main).result == [
        "deadline",
        4,
        "its deadline passed; TimeoutError: the deadline of step "
        "test_a_workflow_sees_the_deadline_and_the_last_error.<locals>.flaky"
        " passed before this attempt",
    ]


def test_a_step_that_is_used_up_asks_for_a_pause(keys: AppKeys) -> None:
    @step(retries=2, exhausted="pause")
    async def broken() -> None:
        raise ValueError

    first, last = attempt(keys, broken), attempt(keys, broken, attempt=3)

    assert "exhausted" not in first.meta
    assert last.type is EventType.STEP_RETRYING
    assert last.meta == {
        "attempt": 3,
        "invocation": "inv_x",
        "reason": "exception",
        "delay_ms": 0,
        "exhausted": True,
    }


def test_a_resumed_step_has_all_its_attempts_again(play: Play) -> None:
    attempts: list[int] = []

    @step(retries=1, exhausted="pause")
    async def flaky() -> int:
        attempts.append(metadata().attempt)
        if metadata().attempt < 4:
            raise ValueError
        return metadata().attempt

    @workflow
    async def main() -> int:
        return await flaky()

    outcome = play(main, before=attempts.clear)

    assert outcome.result == 4
    assert attempts == [1, 2, 3, 4]
    pauses = [e.meta["attempt"] for e in outcome.events if e.meta.get("exhausted")]
    assert pauses == [2]


def test_the_waits_of_a_resumed_step_begin_anew(keys: AppKeys) -> None:
    @step(retries=9, backoff="1s", exhausted="pause")
    async def flaky() -> None:
        raise ValueError

    event = attempt(keys, flaky, attempt=11, history=StepHistory(forgiven=10))

    assert event.meta["delay_ms"] <= 1000


@pytest.mark.parametrize("error", [FatalError("for good"), KeyError("not wanted")])
def test_what_is_never_retried_fails_instead_of_pausing(
    keys: AppKeys, error: BaseException
) -> None:
    @step(exhausted="pause", retry_on=ConnectionError)
    async def broken() -> None:
        raise error

    assert attempt(keys, broken).type is EventType.STEP_FAILED


def test_a_step_that_runs_at_most_once_is_not_retried_unless_asked(keys: AppKeys) -> None:
    @step(at_most_once=True)
    async def pay() -> None:
        raise ConnectionError

    @step(at_most_once=True, retries=1)
    async def pay_again() -> None:
        raise ConnectionError

    assert attempt(keys, pay).type is EventType.STEP_FAILED
    assert attempt(keys, pay_again).type is EventType.STEP_RETRYING
    assert pay.scheduled_meta["once"]


def test_a_workflow_sees_that_a_step_was_interrupted(play: Play) -> None:
    @step(at_most_once=True, name="pay")
    async def pay() -> str:
        return "paid"

    @workflow
    async def main() -> list[Any]:
        try:
            return [await pay()]
        except StepFailedError as error:
            cause = error.__cause__
            assert isinstance(cause, StepInterruptedError)
            return [error.failure, error.attempts, cause.why, str(cause)]

    assert play(main).result == ["paid"]
    failure, attempts, why, text = play(main, cut_off="pay").result
    assert (failure, attempts, why) == ("interrupted", 1, "instance_died")
    assert text.startswith("an execution of step pay was cut off (instance_died)")


@pytest.mark.parametrize("options", [{"deadline": 0}, {"deadline": -1}, {"exhausted": "wait"}])
def test_wrong_limits_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):

        @step(**options)
        async def never() -> None: ...
