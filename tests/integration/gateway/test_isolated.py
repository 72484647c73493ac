"""Isolated steps: an instance for each, which is used once and ended."""

from __future__ import annotations

import asyncio

import pytest

from fluvial.invocations import Answer
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Answered, Lost, Outcome, Unavailable
from fluvial_gateway.invoker_client import RefusedError
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    GET,
    PATIENCE_SECONDS,
    InstancePeer,
    World,
    open_world,
    run,
    spec,
)
from tests.integration.gateway.test_subjects import STEP


class Step:
    """One isolated step under way."""

    def __init__(self, world: World) -> None:
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.handle = world.router.invoke(
            DEPLOYMENT,
            STEP,
            prefer=None,
            deadline_seconds=30.0,
            done=self.outcome.set_result,
            isolated=True,
        )

    async def ended(self) -> Outcome:
        return await asyncio.wait_for(self.outcome, PATIENCE_SECONDS)


async def _invoked(world: World) -> tuple[InstancePeer, int]:
    instance = await world.invoker.next_instance()
    header, _ = await instance.next(FrameType.INVOKE)
    return instance, header[1]


def _answer(instance: InstancePeer, slot: int) -> None:
    outcome, meta, body = Answer(outcome="ok").to_frame_fields()
    instance.link.send(FrameType.ANSWER, slot, outcome, meta, 1, body=body)


def test_each_isolated_step_gets_a_fresh_instance_that_is_then_ended() -> None:
    async def main() -> None:
        async with open_world() as world:
            shared = await world.warm()
            steps = [Step(world), Step(world)]
            taken = [await _invoked(world), await _invoked(world)]
            client = await world.client()
            client.send(GET)
            header = await shared.next_request()  # and not one of theirs
            shared.link.respond(header[1])
            await client.response()
            for instance, slot in taken:
                _answer(instance, slot)

            for step in steps:
                assert isinstance(await step.ended(), Answered)
            assert {i.name for i, _ in taken} == set(world.invoker.killed)
            assert world.invoker.alone == [False, True, True]

    run(main())


def test_at_most_max_instances_isolated_steps_run_at_a_time() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            first, second = Step(world), Step(world)
            instance, slot = await _invoked(world)
            assert len(world.invoker.instances) == 1
            _answer(instance, slot)
            await first.ended()
            await instance.die()
            instance, slot = await _invoked(world)
            _answer(instance, slot)

            assert isinstance(await second.ended(), Answered)

    run(main())


@pytest.mark.parametrize(
    ("fate", "crashed"),
    [("signal:11", True), ("exit:0", True), ("exit:3", True), ("terminated", False), (None, False)],
)
def test_an_end_that_the_code_has_caused_is_a_crash(fate: str | None, crashed: bool) -> None:
    async def main() -> None:
        async with open_world() as world:
            step = Step(world)
            instance, slot = await _invoked(world)
            instance.link.send(FrameType.HEARTBEAT, slot, body=b"half")
            if fate is not None:
                world.invoker.tell_dead(instance.name, fate)
            await instance.die()

            ended = await step.ended()
            assert isinstance(ended, Lost)
            assert ended.crashed is crashed
            assert ended.progress == b"half"
            assert fate is None or ended.reason == fate

    run(main())


def test_an_isolated_step_that_is_cancelled_is_killed_and_is_no_crash() -> None:
    async def main() -> None:
        async with open_world() as world:
            step = Step(world)
            instance, _ = await _invoked(world)
            step.handle.cancel("not_needed")
            await instance.next(FrameType.CANCEL)
            assert world.invoker.killed == [instance.name]
            world.invoker.tell_dead(instance.name, "signal:9")
            await instance.die()

            assert await step.ended() == Lost(instance.name, "not_needed")

    run(main())


def test_an_isolated_step_that_cannot_be_started_is_told_so() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.refusals.append(RefusedError("bundle_missing", "gone"))
            step = Step(world)

            assert isinstance(await step.ended(), Unavailable)

    run(main())
