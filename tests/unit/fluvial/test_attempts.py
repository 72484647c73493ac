"""Attempts of a step: retries, back-off, timeouts, and what is never repeated."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.context import Metadata, metadata
from fluvial.durations import Duration
from fluvial.encryption import AppKeys
from fluvial.errors import (
    FatalError,
    InvalidRequestError,
    NotInWorkflowError,
    RetryableError,
    StepFailedError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import StepRequest
from fluvial.registry import registry
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.step_settings import Backoff
from fluvial.steps import Step, step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

RUN = "run_0000000000000000000000000a"
START_MS = 1_700_000_000_000


def request_of(
    keys: AppKeys, name: str, *args: Any, attempt: int = 1, timeout_ms: int = 0
) -> StepRequest:
    sealed = keys.seal(Binding("orders", RUN, "step_input", 7), encode_call(args, {}))
    return StepRequest(
        run_id=RUN,
        app="orders",
        workflow="main",
        step=name,
        id=7,
        attempt=attempt,
        invocation="inv_x",
        timeout_ms=timeout_ms,
        now_ms=2000,
        carry=None,
        input=sealed,
    )


def attempt(keys: AppKeys, the_step: Step[..., Any], *args: Any, **options: Any) -> Event:
    async def main() -> Event:
        live = LiveRuns(registry, keys)
        answer = await live.step(request_of(keys, the_step.name, *args, **options))
        assert answer.turn_id is None
        (event,) = answer.events
        return decode_event(event)

    return asyncio.run(main())


def test_a_step_is_tried_four_times_by_default(play: Play) -> None:
    attempts: list[int] = []

    @step
    async def flaky() -> None:
        attempts.append(metadata().attempt)
        raise ConnectionError("no")

    @workflow
    async def main() -> list[Any]:
        try:
            await flaky()
        except StepFailedError as error:
            return [error.attempts, type(error.__cause__).__name__]
        return []

    outcome = play(main, before=attempts.clear)

    assert outcome.result == [4, "ConnectionError"]
    assert attempts == [1, 2, 3, 4]
    assert outcome.count(EventType.STEP_RETRYING) == 3


def test_a_step_that_recovers(play: Play) -> None:
    failures: list[int] = []

    @step(retries=2)
    async def flaky() -> str:
        if len(failures) < 2:
            failures.append(1)
            raise ConnectionError("no")
        return "yes"

    @workflow
    async def main() -> str:
        return await flaky()

    assert play(main, before=failures.clear).result == "yes"


def test_backoff_grows_is_capped_and_drawn(keys: AppKeys) -> None:
    @step(retries=10, backoff=Backoff("1s", 2, "8s"))
    async def flaky() -> None:
        raise ValueError

    delays = [attempt(keys, flaky, attempt=n).meta["delay_ms"] for n in range(1, 8)]

    for delay, most in zip(delays, [1, 2, 4, 8, 8, 8, 8], strict=True):
        assert 500 * most <= delay <= 1000 * most
    assert len(set(delays)) > 1


def test_steps_that_failed_together_wait_for_different_times_and_each_as_long_again() -> None:
    backoff = Backoff("1s")

    waits = [backoff.delay_seconds(1, f"run_{number}-1") for number in range(1000)]

    assert waits == [backoff.delay_seconds(1, f"run_{number}-1") for number in range(1000)]
    assert len(set(waits)) > 990
    assert 0.7 < sum(waits) / len(waits) < 0.8
    assert 0.5 <= min(waits) < 0.51
    assert 0.99 < max(waits) <= 1


def test_a_step_chooses_its_own_delay(keys: AppKeys) -> None:
    @step
    async def busy() -> None:
        raise RetryableError("later", retry_after=42)

    event = attempt(keys, busy)

    assert event.type is EventType.STEP_RETRYING
    assert event.meta["delay_ms"] == 42_000


def test_an_error_that_retry_on_does_not_name_is_never_repeated(keys: AppKeys) -> None:
    @step(retries=9, retry_on=(ConnectionError, TimeoutError))
    async def picky(error: str) -> None:
        raise {"down": ConnectionResetError, "wrong": ValueError}[error]("no")

    assert attempt(keys, picky, "down").type is EventType.STEP_RETRYING
    refused = attempt(keys, picky, "wrong")
    assert refused.type is EventType.STEP_FAILED
    assert refused.meta["reason"] == "not_retried"


def test_a_function_chooses_what_is_tried_again(play: Play) -> None:
    class StatusError(Exception):
        def __init__(self, status: int) -> None:
            super().__init__(status)
            self.status = status

    def is_transient(error: Exception) -> bool:
        return isinstance(error, StatusError) and error.status >= 500

    attempts: list[int] = []

    @step(retry_on=is_transient)
    async def fetch(statuses: list[int]) -> None:
        attempts.append(1)
        raise StatusError(statuses[metadata().attempt - 1])

    @workflow
    async def main() -> tuple[int, str]:
        try:
            await fetch([503, 500, 404])
        except StepFailedError as error:
            return error.attempts, error.reason
        return 0, ""

    outcome = play(main, before=attempts.clear)

    assert outcome.result == (3, f"{StatusError.__module__}.{StatusError.__qualname__}: 404")
    assert len(attempts) == 3


def test_retry_on_has_no_say_where_the_body_asks_for_another_attempt(keys: AppKeys) -> None:
    @step(retry_on=ConnectionError)
    async def busy() -> None:
        raise RetryableError("later")

    assert attempt(keys, busy).type is EventType.STEP_RETRYING


def test_a_retry_on_that_fails_is_the_steps_error(play: Play) -> None:
    def broken(error: Exception) -> bool:
        raise KeyError("status")

    @step(retry_on=broken)
    async def fetch() -> None:
        raise ValueError("first")

    @workflow
    async def main() -> list[str]:
        try:
            await fetch()
        except StepFailedError as error:
            cause = error.__cause__
            assert cause is not None
            return [repr(cause), repr(cause.__cause__)]
        return []

    assert play(main).result == ["KeyError('status')", "ValueError('first')"]


@pytest.mark.parametrize(
    ("after", "seconds"), [("1h 30m", 5400), (0, 0), (2.5, 2.5), (timedelta(minutes=1), 60)]
)
def test_a_retry_comes_after_any_kind_of_duration(after: Duration, seconds: float) -> None:
    assert RetryableError(retry_after=after).retry_after_seconds == seconds


def test_a_retry_comes_at_a_moment() -> None:
    in_an_hour = RetryableError(retry_after=datetime.now(UTC) + timedelta(hours=1))
    long_ago = RetryableError(retry_after=datetime(2020, 1, 1, tzinfo=UTC))

    assert 3590 < in_an_hour.retry_after_seconds <= 3600
    assert long_ago.retry_after_seconds == 0


@pytest.mark.parametrize("after", ["soon", -1, datetime(2030, 1, 1)])  # noqa: DTZ001 - no zone
def test_a_retry_after_what_is_no_time_is_refused(after: Any) -> None:
    with pytest.raises(InvalidRequestError, match="retry_after"):
        RetryableError(retry_after=after)


def test_a_fatal_error_is_never_repeated(keys: AppKeys) -> None:
    @step(retries=9)
    async def broken() -> None:
        raise FatalError("for good")

    event = attempt(keys, broken)

    assert event.type is EventType.STEP_FAILED
    assert event.meta == {"attempt": 1, "invocation": "inv_x", "reason": "fatal"}


@pytest.mark.parametrize("is_async", [True, False])
def test_a_result_that_cannot_be_stored_is_never_repeated(keys: AppKeys, is_async: bool) -> None:
    def plain() -> object:
        return {"client": threading.Lock()}

    async def coroutine() -> object:
        return plain()

    made = step(retries=9, name="made")(coroutine if is_async else plain)
    event = attempt(keys, made)

    assert event.type is EventType.STEP_FAILED
    assert event.meta["reason"] == "not_serializable"


def test_a_wrong_call_is_never_repeated(keys: AppKeys) -> None:
    @step
    async def one(number: int) -> None: ...

    event = attempt(keys, one, 1, 2, 3)

    assert event.type is EventType.STEP_FAILED
    assert event.meta["reason"] == "invalid_arguments"


def test_an_unknown_step_fails(keys: AppKeys) -> None:
    @step
    async def one() -> None: ...

    registry.steps.clear()

    assert attempt(keys, one).meta["reason"] == "step_not_found"


@pytest.mark.parametrize("attempt_number", [1, 4])
def test_a_timeout_is_retried_until_the_last_attempt(keys: AppKeys, attempt_number: int) -> None:
    @step(timeout="10ms")
    async def slow() -> None:
        await asyncio.get_running_loop().create_future()

    event = attempt(keys, slow, attempt=attempt_number, timeout_ms=slow.settings.timeout_ms)

    wanted = EventType.STEP_RETRYING if attempt_number == 1 else EventType.STEP_FAILED
    assert event.type is wanted
    assert event.meta["reason"] == "timeout"


def test_a_timeout_error_of_the_body_is_an_ordinary_error(keys: AppKeys) -> None:
    @step
    async def slow() -> None:
        raise TimeoutError("theirs")

    assert attempt(keys, slow, timeout_ms=60_000).meta["reason"] == "exception"


def test_a_cancellation_from_outside_goes_on(keys: AppKeys) -> None:
    entered = asyncio.Event()

    @step
    async def slow() -> None:
        entered.set()
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        live = LiveRuns(registry, keys)
        task = asyncio.create_task(live.step(request_of(keys, slow.name)))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancellation_inside_the_body_is_a_failure(keys: AppKeys) -> None:
    @step
    async def odd() -> None:
        raise asyncio.CancelledError

    assert attempt(keys, odd).type is EventType.STEP_RETRYING


@pytest.mark.parametrize("error", [SystemExit(2), StopIteration(1)])
def test_a_body_cannot_stop_its_instance(keys: AppKeys, error: BaseException) -> None:
    @step
    async def odd() -> None:
        raise error

    @step
    def odd_sync() -> None:
        raise error

    assert attempt(keys, odd).type is EventType.STEP_RETRYING
    assert attempt(keys, odd_sync).type is EventType.STEP_RETRYING


def test_a_sync_body_runs_in_a_thread_with_its_context(keys: AppKeys) -> None:
    seen: list[tuple[bool, int | None]] = []

    @step
    def work() -> None:
        is_main = threading.current_thread() is threading.main_thread()
        seen.append((is_main, metadata().step_id))

    assert attempt(keys, work).type is EventType.STEP_COMPLETED
    assert seen == [(False, 7)]


def test_the_idempotency_key_is_stable_over_attempts(play: Play) -> None:
    seen: list[str] = []

    @step
    async def flaky(number: int) -> None:
        seen.append(metadata().idempotency_key)
        if metadata().attempt == 1:
            raise ValueError

    @workflow
    async def main() -> str:
        await flaky(1)
        await flaky(2)
        return metadata().run_id

    outcome = play(main, before=seen.clear)

    assert outcome.result == RUN
    assert seen == [f"{RUN}-1", f"{RUN}-1", f"{RUN}-2", f"{RUN}-2"]


def test_a_step_knows_its_place_and_what_went_before(play: Play) -> None:
    seen: list[Metadata] = []

    @step(name="fetch")
    async def fetch() -> None:
        seen.append(metadata())
        assert metadata() is metadata()
        if metadata().attempt < 3:
            raise ConnectionError(f"attempt {metadata().attempt}")

    @workflow(name="main")
    async def main() -> None:
        await fetch()

    play(main, before=seen.clear)

    assert [(m.run_id, m.workflow, m.step, m.step_id) for m in seen] == [
        (RUN, "main", "fetch", 1)
    ] * 3
    assert [m.attempt for m in seen] == [1, 2, 3]
    assert [repr(m.previous_error) for m in seen] == [
        "None",
        "ConnectionError('attempt 1')",
        "ConnectionError('attempt 2')",
    ]
    (started_at,) = {m.step_started_at for m in seen}
    assert started_at == datetime.fromtimestamp(START_MS / 1000 + 0.001, UTC)
    assert seen[0].deployment is None


def test_a_step_that_calls_a_step_just_calls_it(play: Play) -> None:
    @step
    def inner(number: int) -> int:
        return number + 1

    @step
    async def outer(number: int) -> int:
        first: int = inner.function(number)
        return first + await coroutine(number)

    @step
    async def coroutine(number: int) -> int:
        return number

    @workflow
    async def main() -> int:
        return await outer(10)

    outcome = play(main)

    assert outcome.result == 21
    assert outcome.count(EventType.STEP_SCHEDULED) == 1


def test_metadata_outside_is_refused() -> None:
    with pytest.raises(NotInWorkflowError):
        metadata()


@pytest.mark.parametrize(
    "options",
    [
        {"retries": -1},
        {"retries": 10_000},
        {"timeout": 0},
        {"timeout": "soon"},
        {"backoff": -1},
        {"retry_on": "ConnectionError"},
        {"retry_on": (ConnectionError, "TimeoutError")},
        {"retry_on": int},
        {"retry_on": asyncio.sleep},
        {"name": ""},
        {"name": "x" * 257},
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):

        @step(**options)
        async def never() -> None: ...


def test_backoff_is_checked() -> None:
    with pytest.raises(InvalidRequestError):
        Backoff("10s", most="1s")
    with pytest.raises(InvalidRequestError):
        Backoff(factor=0)


def test_two_functions_cannot_share_a_name() -> None:
    @step(name="same")
    async def one() -> None: ...

    with pytest.raises(InvalidRequestError, match="same"):

        @step(name="same")
        async def two() -> None: ...


def test_a_generator_is_no_step_and_a_plain_function_no_workflow() -> None:
    def numbers() -> Any:
        yield 1

    with pytest.raises(InvalidRequestError, match="not yield"):
        step(numbers)
    with pytest.raises(InvalidRequestError, match="async def"):
        workflow(numbers)
