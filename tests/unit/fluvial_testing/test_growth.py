"""A long history costs nothing: the same work per step, and no memory, after 10,000 steps.

Work is counted in calls of functions, Python's and C's, so that the machine has no say.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from fluvial import step, workflow
from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import Answer, StepRequest, TurnRequest
from fluvial.registry import registry
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.testing import SyncEnvironment
from fluvial.turns import LiveRuns
from fluvial_queue.kit import open_engine

if TYPE_CHECKING:
    from collections.abc import Generator

APP, RUN = "growth", "run_0000000000000000000000000a"
KEYS = AppKeys(APP, {"k1": bytes(32)}, "k1")
STEPS = 10_000


class Calls:
    """Counts calls of functions while it is on."""

    def __init__(self) -> None:
        self.counted = 0

    def begin(self) -> None:
        self.counted = 0
        sys.setprofile(self._count)

    def end(self) -> int:
        sys.setprofile(None)
        return self.counted

    def _count(self, _frame: FrameType, event: str, _argument: object) -> None:
        self.counted += event in {"call", "c_call"}


@contextmanager
def traced_memory() -> Generator[None]:
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@step
async def add(total: int, number: int) -> int:
    return total + number


@workflow
async def adding(count: int) -> int:
    total = 0
    for number in range(count):
        total = await add(total, number)
    return total


def first_turn(live: LiveRuns, count: int) -> Answer:
    payload = KEYS.seal(Binding(APP, RUN, "input"), encode_call((count,), {}))
    started = Event(EventType.RUN_STARTED, 1000, 0, payload).encode()
    return live.turn(
        TurnRequest(
            run_id=RUN, app=APP, workflow=adding.name, turn_id=None, consumed=0, now_ms=1,
            events=[started],
        )
    )  # fmt: skip


async def step_and_turn(live: LiveRuns, before: Answer) -> Answer:
    event = decode_event(before.events[-1])
    return await live.step(
        StepRequest(
            run_id=RUN, app=APP, workflow="-", step=add.name, id=event.id, attempt=1,
            invocation="inv_x", timeout_ms=0, now_ms=2, carry=before.turn_id, input=event.payload,
        )
    )  # fmt: skip


def test_an_instance_does_the_same_for_each_of_10_000_steps_and_keeps_none() -> None:
    work: dict[int, int] = {}
    memory: dict[int, int] = {}
    calls = Calls()

    async def main() -> Answer:
        live = LiveRuns(registry, KEYS)
        answer = first_turn(live, STEPS)
        for number in range(1, STEPS + 1):
            measured = number in {1_000, STEPS - 1}
            if measured:
                calls.begin()
            answer = await step_and_turn(live, answer)
            if measured:
                work[number] = calls.end()
                gc.collect()
                memory[number] = tracemalloc.get_traced_memory()[0]
        return answer

    with traced_memory():
        end = asyncio.run(main())

    assert decode_event(end.events[-1]).type is EventType.RUN_COMPLETED
    assert work[STEPS - 1] == work[1_000]
    assert memory[STEPS - 1] - memory[1_000] < 2048


def test_the_engine_does_the_same_for_each_of_10_000_steps() -> None:
    """Instance, sequencer and store together; ids have more digits later on."""
    work: dict[int, int] = {}
    calls = Calls()

    async def measure(total: int, number: int) -> int:
        if number in {1_000, STEPS - 20}:
            calls.begin()
        elif number in {1_010, STEPS - 10}:
            work[number - 10] = calls.end()
        return total + number

    with SyncEnvironment(engine=open_engine) as env:
        env.mock(add, does=measure)
        assert env.start(adding, STEPS).result() == sum(range(STEPS))

    assert work[STEPS - 20] < 1.02 * work[1_000]
