"""Calls of instances: which execution they come out of is the gateway's own knowledge."""

from __future__ import annotations

from typing import Any

from fluvial.invocations import Answer, StepRequest
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Outcome, Subject
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    InstancePeer,
    World,
    open_world,
    run,
)

STEP = StepRequest(
    run_id="run_1",
    app="app",
    workflow="w",
    step="s",
    id=3,
    attempt=2,
    invocation="inv_1",
    timeout_ms=0,
    now_ms=1,
    carry=None,
    input=b"",
).to_frame_fields()
SUBJECT = Subject(run_id="run_1", step_id=3, attempt=2, message_id="17-0")


def _ignore(_: Outcome) -> None: ...


def _invoke(world: World, subject: Subject | None) -> None:
    world.router.invoke(
        DEPLOYMENT, STEP, prefer=None, deadline_seconds=30.0, done=_ignore, subject=subject
    )


async def _who(instance: InstancePeer, invocation: object) -> Any:
    """Call out of an invocation; return the subject that the gateway knows it by."""
    instance.link.send(FrameType.CALL, 1, invocation, "who", {"subject": None})
    header, _ = await instance.next(FrameType.REPLY)
    return header[3]["subject"]


def test_a_call_out_of_a_step_is_known_by_what_the_dispatcher_said_of_it() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            _invoke(world, SUBJECT)
            header, _ = await instance.next(FrameType.INVOKE)

            assert await _who(instance, header[1]) == {
                "run_id": "run_1",
                "step_id": 3,
                "attempt": 2,
                "message_id": "17-0",
            }

    run(main())


def test_calls_out_of_anything_else_have_no_subject() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            _invoke(world, None)
            header, _ = await instance.next(FrameType.INVOKE)

            for invocation in (0, header[1], header[1] + 1):
                assert await _who(instance, invocation) is None

    run(main())


def test_an_execution_that_has_answered_is_nobody_any_more() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            _invoke(world, SUBJECT)
            header, _ = await instance.next(FrameType.INVOKE)
            outcome, meta, body = Answer(outcome="ok").to_frame_fields()
            instance.link.send(FrameType.ANSWER, header[1], outcome, meta, 1, body=body)

            assert await _who(instance, header[1]) is None

    run(main())


def test_a_call_without_the_number_of_an_invocation_closes_the_link() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            instance.link.send(FrameType.CALL, 1, [], "who", {})

            await instance.link_lost()

    run(main())
