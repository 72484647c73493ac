"""Steps that must give signs of life: the gateway watches them where their instance cannot."""

from __future__ import annotations

import asyncio

import pytest

from fluvial.invocations import MAX_PROGRESS_BYTES, Answer
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Answered, Lost, Outcome
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    PATIENCE_SECONDS,
    InstancePeer,
    World,
    open_world,
    run,
)
from tests.integration.gateway.test_subjects import STEP

HEARTBEAT_MS = (
    40_000  # silence is noticed after 53 s: a report may be 10 s late, and 3 s on its way
)


class Clock:
    """The gateway's clock, moved by a test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Step:
    """One step that was invoked with a heartbeat."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.clock = clock
        self.world = world
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.slot = 0

    async def begin(self, instance: InstancePeer) -> None:
        self.world.router.invoke(
            DEPLOYMENT,
            STEP,
            prefer=None,
            deadline_seconds=200.0,
            done=self.outcome.set_result,
            heartbeat_ms=HEARTBEAT_MS,
        )
        header, _ = await instance.next(FrameType.INVOKE)
        self.slot = header[1]

    def beat(self, instance: InstancePeer, progress: bytes = b"") -> None:
        instance.link.send(FrameType.HEARTBEAT, self.slot, body=progress)

    async def pass_time(self, seconds: float, instance: InstancePeer) -> None:
        """Let time pass after all that was sent has been read."""
        await self.world.warm_again(instance)
        self.clock.now += seconds

    async def ended(self) -> Outcome:
        return await asyncio.wait_for(self.outcome, PATIENCE_SECONDS)


def _answer_cancelled(step: Step, instance: InstancePeer) -> None:
    outcome, meta, body = Answer(outcome="cancelled").to_frame_fields()
    instance.link.send(FrameType.ANSWER, step.slot, outcome, meta, 1, body=body)


def test_a_silent_step_is_cancelled_and_lost_with_its_progress() -> None:
    async def main() -> None:
        clock = Clock()
        async with open_world(clock=clock) as world:
            instance = await world.warm()
            step = Step(world, clock)
            await step.begin(instance)
            step.beat(instance, b"half")
            await step.pass_time(54, instance)
            header, _ = await instance.next(FrameType.CANCEL)
            _answer_cancelled(step, instance)

            assert header[1] == step.slot
            assert await step.ended() == Lost(instance.name, "heartbeat", b"half")

    run(main())


def test_beats_keep_a_step_going_until_its_own_deadline() -> None:
    async def main() -> None:
        clock = Clock()
        async with open_world(clock=clock) as world:
            instance = await world.warm()
            step = Step(world, clock)
            await step.begin(instance)
            for number in range(4):  # 180 s: without beats it would end after 53
                step.beat(instance, b"%d" % number)
                await step.pass_time(45, instance)
            step.beat(instance)
            await step.pass_time(25, instance)
            header, _ = await instance.next(FrameType.CANCEL)  # and none before
            _answer_cancelled(step, instance)

            assert header[2] == "timeout"
            assert await step.ended() == Lost(instance.name, "cancelled", b"3")

    run(main())


def test_an_instance_that_dies_leaves_the_last_progress() -> None:
    async def main() -> None:
        clock = Clock()
        async with open_world(clock=clock) as world:
            instance = await world.warm()
            step = Step(world, clock)
            await step.begin(instance)
            step.beat(instance, b"one")
            step.beat(instance, b"two")
            step.beat(instance)
            await world.warm_again(instance)
            await instance.die()

            ended = await step.ended()
            assert isinstance(ended, Lost)
            assert ended.progress == b"two"

    run(main())


def test_a_beat_that_crosses_the_answer_is_nothing() -> None:
    async def main() -> None:
        clock = Clock()
        async with open_world(clock=clock) as world:
            instance = await world.warm()
            step = Step(world, clock)
            await step.begin(instance)
            outcome, meta, body = Answer(outcome="ok").to_frame_fields()
            instance.link.send(FrameType.ANSWER, step.slot, outcome, meta, 1, body=body)
            step.beat(instance)
            await world.warm_again(instance)

            assert isinstance(await step.ended(), Answered)

    run(main())


@pytest.mark.parametrize("hostile", ["a slot that never was", "a progress that is too large"])
def test_hostile_beats_close_the_link(hostile: str) -> None:
    async def main() -> None:
        clock = Clock()
        async with open_world(clock=clock) as world:
            instance = await world.warm()
            step = Step(world, clock)
            await step.begin(instance)
            if hostile == "a slot that never was":
                instance.link.send(FrameType.HEARTBEAT, step.slot + 1)
            else:
                step.beat(instance, b"x" * (MAX_PROGRESS_BYTES + 1))

            await instance.link_lost()
            assert isinstance(await step.ended(), Lost)

    run(main())
