"""Resealing: few at a time, in batches, and nothing that was not answered as asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.invocations import Answer
from fluvial.resealing import ResealRequest
from fluvial_gateway.invocations import Answered, Outcome, Subject
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.resealer import Resealer
from fluvial_queue.contract import RunRecord, RunStatus

ORIGIN = RunRecord(
    run_id="run_1",
    app="shop",
    workflow="fulfil",
    deployment="dpl_1",
    status=RunStatus.FAILED,
    created_ms=0,
    finished_ms=0,
    key="",
    fingerprint=b"",
    input=b"",
    turn=b"",
    events=0,
    meta={},
)


class Handle:
    instance = None

    def cancel(self, reason: str) -> None: ...


class Instances:
    """Answers each request with its events, but for `missing` of them."""

    def __init__(self, missing: int = 0) -> None:
        self.sizes: list[int] = []
        self._missing = missing

    def invoke(
        self,
        deployment: str,
        fields: tuple[str, dict[str, Any], bytes],
        *,
        prefer: str | None,
        deadline_seconds: float,
        done: Callable[[Outcome], None],
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
        isolated: bool = False,
    ) -> Handle:
        _, meta, body = fields
        events = ResealRequest.from_frame(meta, body).events
        self.sizes.append(len(events))
        kept = events[: len(events) - self._missing]
        answer = Answered("ins_1", Answer(outcome="ok", events=list(kept)), 1)
        asyncio.get_running_loop().call_soon(done, answer)
        return Handle()

    def forget(self, instance: str, run_ids: Sequence[str]) -> None: ...


def events(count: int, size: int) -> list[bytes]:
    return [Event(EventType.STEP_COMPLETED, 0, n, b"x" * size).encode() for n in range(count)]


@pytest.mark.parametrize(
    ("count", "size", "batches"),
    [(2000, 0, [2000]), (4001, 0, [2000, 2000, 1]), (5, 4 * 1024 * 1024, [1, 1, 1, 1, 1])],
)
def test_a_log_is_sealed_in_batches(count: int, size: int, batches: list[int]) -> None:
    instances, log = Instances(), events(count, size)
    sealed = asyncio.run(Resealer(instances).reseal(ORIGIN, "run_2", "dpl_1", log))

    assert instances.sizes == batches
    assert sealed == log


def test_an_answer_that_lacks_an_event_is_refused() -> None:
    with pytest.raises(ProblemError, match="cannot be taken over") as refused:
        asyncio.run(Resealer(Instances(1)).reseal(ORIGIN, "run_2", "dpl_1", events(3, 0)))

    assert refused.value.problem_code == "not_resealed"


def test_few_are_under_way_and_not_too_many_wait() -> None:
    async def main() -> None:
        resealer, go_on = Resealer(Instances()), asyncio.Event()
        inside: list[int] = []
        are_two = asyncio.Event()

        async def hold(number: int) -> None:
            async with resealer.admitted():
                inside.append(number)
                if len(inside) == 2:
                    are_two.set()
                await go_on.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(hold(number))
            await are_two.wait()
            with pytest.raises(ProblemError, match="32 forks and reruns wait already"):
                await resealer.admitted().__aenter__()
            assert inside == [0, 1]
            go_on.set()
        assert inside == list(range(32))
        async with AsyncExitStack() as stack:  # their places are free again
            await stack.enter_async_context(resealer.admitted())
            await stack.enter_async_context(resealer.admitted())

    asyncio.run(main())
