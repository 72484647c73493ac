"""`fluvial.heartbeat` in bodies of steps, and what the next attempt learns."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.context import activate, metadata
from fluvial.encryption import AppKeys
from fluvial.errors import InvalidRequestError, SerializationError, WorkflowSandboxError
from fluvial.events import Event, EventType, decode_event
from fluvial.heartbeats import heartbeat
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


def attempt(keys: AppKeys, the_step: Step[[], Any], *, history: StepHistory | None = None) -> Event:
    async def main() -> Event:
        binding = Binding("orders", RUN, "step_input", 7)
        request = StepRequest(
            run_id=RUN,
            app="orders",
            workflow="main",
            step=the_step.name,
            id=7,
            attempt=1 if history is None else 2,
            invocation="inv_x",
            timeout_ms=0,
            now_ms=1000,
            carry=None,
            input=keys.seal(binding, encode_call((), {})),
            history=history,
        )
        (event,) = (await LiveRuns(registry, keys).step(request)).events
        return decode_event(event)

    return asyncio.run(main())


def test_an_attempt_that_goes_silent_has_failed_and_leaves_its_progress(keys: AppKeys) -> None:
    @step(heartbeat="20ms")
    async def copy() -> None:
        heartbeat({"rows": 10})
        await asyncio.get_running_loop().create_future()

    @step
    async def look() -> Any:
        return metadata().progress

    lost = attempt(keys, copy)
    history = StepHistory(progress=lost.meta["progress"])
    seen = attempt(keys, look, history=history)

    assert (lost.type, lost.meta["reason"]) == (EventType.STEP_RETRYING, "heartbeat")
    assert seen.type is EventType.STEP_COMPLETED
    opened = keys.for_run(RUN).open(seen.payload, "step_result", 7)
    assert b"rows" in opened
    assert b"rows" not in lost.meta["progress"]


def test_an_error_that_the_body_raises_leaves_its_progress_too(play: Play) -> None:
    @step(backoff=0)
    async def resumable() -> list[Any]:
        known = metadata()
        if known.attempt < 3:
            heartbeat(known.attempt * 10)
            raise ConnectionError
        return [known.progress, known.attempt]

    @workflow
    async def main() -> list[Any]:
        return await resumable()

    assert play(main).result == [20, 3]


def test_a_thread_beats_and_hears_that_its_attempt_is_over(keys: AppKeys) -> None:
    silent, heard = threading.Event(), threading.Event()

    @step(heartbeat="20ms")
    def work() -> None:
        heartbeat("begun")
        assert silent.wait(10)
        try:
            heartbeat("late")
        except TimeoutError:
            heard.set()
            raise

    async def main() -> Event:
        live = LiveRuns(registry, keys)
        binding = Binding("orders", RUN, "step_input", 7)
        request = StepRequest(
            run_id=RUN, app="orders", workflow="main", step=work.name, id=7, attempt=1,
            invocation="inv_x", timeout_ms=0, now_ms=1000, carry=None,
            input=keys.seal(binding, encode_call((), {})),
        )  # fmt: skip
        event = decode_event((await live.step(request)).events[0])
        silent.set()
        await asyncio.get_running_loop().run_in_executor(None, heard.wait, 10)
        return event

    event = asyncio.run(main())

    assert (event.type, event.meta["reason"]) == (EventType.STEP_RETRYING, "heartbeat")
    assert heard.is_set()


def test_reports_are_sealed_and_come_out_of_the_platform(keys: AppKeys) -> None:
    reports: list[bytes] = []

    class Platform:
        def open_pulse(self) -> Any:
            return reports.append

    @step
    async def copy() -> None:
        heartbeat("secret place")
        await asyncio.sleep(0)
        heartbeat("another")  # too soon: not reported

    async def main() -> None:
        platform: Any = Platform()
        activate(None, platform)
        binding = Binding("orders", RUN, "step_input", 7)
        request = StepRequest(
            run_id=RUN, app="orders", workflow="main", step=copy.name, id=7, attempt=1,
            invocation="inv_x", timeout_ms=0, now_ms=1000, carry=None,
            input=keys.seal(binding, encode_call((), {})),
        )  # fmt: skip
        await LiveRuns(registry, keys).step(request)

    asyncio.run(main())

    (report,) = reports
    assert b"secret place" not in report
    assert b"secret place" in keys.for_run(RUN).open(report, "progress", 7)


def test_outside_a_run_a_heartbeat_does_nothing() -> None:
    @step(heartbeat="1s")
    def work() -> str:
        heartbeat(1)
        return "done"

    assert work.function() == "done"


def test_workflow_code_has_no_heartbeat(play: Play) -> None:
    @workflow
    async def main() -> None:
        heartbeat()

    assert isinstance(play(main).error, WorkflowSandboxError)


def test_a_progress_that_cannot_be_stored_is_the_bodys_error(keys: AppKeys) -> None:
    refused: list[str] = []

    @step
    async def copy() -> None:
        for progress in (threading.Lock(), list(range(100_000))):
            try:
                heartbeat(progress)
            except SerializationError as error:
                refused.append(error.path)

    assert attempt(keys, copy).type is EventType.STEP_COMPLETED
    assert refused == ["progress", "progress"]


def test_a_heartbeat_of_no_time_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="heartbeat"):
        step(heartbeat=0)
