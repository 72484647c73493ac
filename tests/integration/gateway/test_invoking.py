"""Turns, steps and reveals over links: each is told exactly one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from fluvial import wire
from fluvial.invocations import Answer, RevealRequest, TurnRequest, Unreadable
from fluvial.wire import FrameType
from fluvial_gateway.invocations import Answered, Lost, Outcome, Unavailable
from fluvial_gateway.link_calls import MAX_CALLS
from fluvial_gateway.pool_contract import PoolLimits
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    PATIENCE_SECONDS,
    InstancePeer,
    World,
    open_world,
    run,
    spec,
)

TURN = TurnRequest(
    run_id="run_1", app="app", workflow="w", turn_id=None, consumed=0, now_ms=1, events=[b"e"]
).to_frame_fields()
REVEAL = RevealRequest(run_id="run_1", app="app", workflow="w", events=[b"e"]).to_frame_fields()


class Asker:
    """Invokes and keeps the outcomes."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._outcomes: asyncio.Queue[Outcome] = asyncio.Queue()

    def invoke(
        self,
        fields: tuple[str, dict[str, Any], bytes] = TURN,
        *,
        prefer: str | None = None,
        seconds: float = 30.0,
        deployment: str = DEPLOYMENT,
    ) -> Any:
        return self._world.router.invoke(
            deployment,
            fields,
            prefer=prefer,
            deadline_seconds=seconds,
            done=self._outcomes.put_nowait,
        )

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._outcomes.get()

    def heard_nothing(self) -> bool:
        return self._outcomes.empty()


def _answer(instance: InstancePeer, slot: int, answer: Answer, cpu_us: int = 5) -> None:
    outcome, meta, body = answer.to_frame_fields()
    instance.link.send(FrameType.ANSWER, slot, outcome, meta, cpu_us, body=body)


def test_a_turn_is_answered() -> None:
    async def main() -> None:
        async with open_world() as world:
            asker = Asker(world)
            handle = asker.invoke()
            instance = await world.invoker.next_instance()
            header, body = await instance.next(FrameType.INVOKE)
            assert handle.instance == instance.name
            answer = Answer(outcome="ok", turn_id=b"t" * 8, events=[b"a", b"b"])
            _answer(instance, header[1], answer)

            assert await asker.outcome() == Answered(instance.name, answer, 5)
            assert (header[2], TurnRequest.from_frame(header[3], body).events) == ("turn", [b"e"])
            handle.cancel("too late")  # changes nothing
            assert instance.no_frame()

    run(main())


def test_a_reveal_is_answered_with_texts() -> None:
    async def main() -> None:
        async with open_world() as world:
            asker = Asker(world)
            asker.invoke(REVEAL)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.INVOKE)
            meta = {"turn": None, "reason": ""}
            texts = msgpack.packb(["one", None, b"key_destroyed it is gone"])
            instance.link.send(FrameType.ANSWER, header[1], "ok", meta, 1, body=texts)
            outcome = await asker.outcome()

            assert isinstance(outcome, Answered)
            unreadable = Unreadable("key_destroyed", "it is gone")
            assert list(outcome.texts) == ["one", None, unreadable]

    run(main())


def test_an_instance_that_dies_with_a_turn_is_told_as_lost() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            asker.invoke()
            await instance.next(FrameType.INVOKE)
            await instance.die()
            outcome = await asker.outcome()

            assert isinstance(outcome, Lost)
            assert outcome.instance == instance.name

    run(main())


def test_a_turn_whose_instance_never_was_ready_goes_elsewhere() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.prepare.append(lambda peer: setattr(peer, "welcomes", False))
            asker = Asker(world)
            asker.invoke()
            first = await world.invoker.next_instance()
            await first.next(FrameType.INVOKE)
            await first.die()
            world.invoker.tell_dead(first.name, "exit:0")
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.INVOKE)
            _answer(second, header[1], Answer(outcome="ok"))

            assert isinstance(await asker.outcome(), Answered)
            assert asker.heard_nothing()

    run(main())


def test_an_import_failure_is_told_with_its_text() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.prepare.append(lambda peer: setattr(peer, "welcomes", False))
            asker = Asker(world)
            asker.invoke()
            instance = await world.invoker.next_instance()
            await instance.next(FrameType.INVOKE)
            await instance.die()
            world.invoker.tell_dead(instance.name, "import_failed: No module named 'x'")

            assert await asker.outcome() == Unavailable(
                "import_failed", "No module named 'x'", False
            )

    run(main())


def test_an_unknown_deployment_is_unavailable() -> None:
    async def main() -> None:
        async with open_world() as world:
            asker = Asker(world)
            asker.invoke(deployment="dpl_unknown")
            outcome = await asker.outcome()

            assert isinstance(outcome, Unavailable)
            assert (outcome.code, outcome.retryable) == ("deployment_not_found", False)

    run(main())


def test_the_preferred_instance_is_used_while_it_has_room() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_concurrency=2)) as world:
            asker = Asker(world)
            for _ in range(3):
                asker.invoke()
            instances = [await world.invoker.next_instance() for _ in range(2)]
            for _ in range(2):
                await instances[0].next(FrameType.INVOKE)
            header, _ = await instances[1].next(FrameType.INVOKE)
            asker.invoke(prefer=instances[0].name)  # full: goes to the other one
            await instances[1].next(FrameType.INVOKE)
            _answer(instances[1], header[1], Answer(outcome="ok"))
            await asker.outcome()
            asker.invoke(prefer=instances[1].name)

            await instances[1].next(FrameType.INVOKE)

    run(main())


def test_cancelling_a_waiting_turn_refuses_it_later_and_once() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.gate = asyncio.Event()
            asker = Asker(world)
            handle = asker.invoke()
            handle.cancel("terminated")
            assert asker.heard_nothing()  # never from within a call
            handle.cancel("terminated")

            assert await asker.outcome() == Unavailable("cancelled", "terminated", False)
            assert handle.instance is None
            assert asker.heard_nothing()

    run(main())


def test_cancelling_a_running_turn_asks_the_instance() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            handle = asker.invoke()
            header, _ = await instance.next(FrameType.INVOKE)
            handle.cancel("terminated")
            handle.cancel("terminated")
            cancel, _ = await instance.next(FrameType.CANCEL)
            _answer(instance, header[1], Answer(outcome="cancelled"))
            outcome = await asker.outcome()

            assert cancel[1:3] == [header[1], "terminated"]
            assert isinstance(outcome, Answered)
            assert outcome.answer.outcome == "cancelled"
            assert instance.no_frame()

    run(main())


def test_a_cancelled_turn_that_is_refused_is_not_sent_again() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            handle = asker.invoke()
            header, _ = await instance.next(FrameType.INVOKE)
            handle.cancel("terminated")
            instance.link.send(FrameType.NACK, header[1], "draining")

            assert await asker.outcome() == Unavailable("cancelled", "terminated", False)

    run(main())


def test_a_turn_beyond_its_deadline_is_cancelled() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            asker.invoke(seconds=0.05)
            header, _ = await instance.next(FrameType.INVOKE)
            cancel, _ = await instance.next(FrameType.CANCEL)

            assert cancel[1:3] == [header[1], "timeout"]

    run(main())


def test_the_time_to_run_begins_when_the_wait_is_over() -> None:
    async def main() -> None:
        now = [0.0]
        async with open_world(clock=lambda: now[0]) as world:
            world.invoker.gate = asyncio.Event()
            asker = Asker(world)
            asker.invoke(seconds=10.0)
            now[0] = 9.0
            world.invoker.gate.set()
            instance = await world.invoker.next_instance()
            patient, _ = await instance.next(FrameType.INVOKE)
            asker.invoke(seconds=5.0)
            hasty, _ = await instance.next(FrameType.INVOKE)
            now[0] = 14.5
            first, _ = await instance.next(FrameType.CANCEL)
            now[0] = 19.5
            second, _ = await instance.next(FrameType.CANCEL)

            assert (first[1], second[1]) == (hasty[1], patient[1])

    run(main())


def test_a_cancelled_invocation_that_runs_on_costs_its_instance_the_life() -> None:
    async def main() -> None:
        now = [0.0]
        async with open_world(clock=lambda: now[0]) as world:
            asker = Asker(world)
            handle = asker.invoke(seconds=24 * 3600.0)
            instance = await world.invoker.next_instance()
            await instance.next(FrameType.INVOKE)
            handle.cancel("not_needed")
            await instance.next(FrameType.CANCEL)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not world.invoker.kill_asked.is_set():
                    now[0] += 10.0
                    await asyncio.sleep(world.router.limits.resolution_seconds)

            assert world.invoker.killed == [instance.name]
            assert now[0] < 120.0

    run(main())


def test_waiting_beyond_the_deadline_is_a_queue_timeout() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.gate = asyncio.Event()
            asker = Asker(world)
            asker.invoke(seconds=0.05)
            outcome = await asker.outcome()

            assert isinstance(outcome, Unavailable)
            assert (outcome.code, outcome.retryable) == ("queue_timeout", True)

    run(main())


def test_nobody_is_refused_for_ever_by_instances_that_drain() -> None:
    async def main() -> None:
        async with open_world(
            pool_limits=PoolLimits(max_reroutes=3, resolution_seconds=0.01)
        ) as world:
            asker = Asker(world)
            asker.invoke()
            for _ in range(4):
                instance = await world.invoker.next_instance()
                header, _ = await instance.next(FrameType.INVOKE)
                instance.link.send(FrameType.NACK, header[1], "draining")
            outcome = await asker.outcome()

            assert isinstance(outcome, Unavailable)
            assert (outcome.code, outcome.retryable) == ("unavailable", True)

    run(main())


def test_forget_reaches_the_instance() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            world.router.forget(instance.name, ["run_1", "run_2"])
            world.router.forget("ins_unknown", ["run_3"])
            header, _ = await instance.next(FrameType.FORGET)

            assert header[2] == ["run_1", "run_2"]

    run(main())


Violation = Callable[[InstancePeer, int], None]
VIOLATIONS: dict[str, Violation] = {
    "unknown_frame": lambda peer, slot: peer.link.send(99, slot),
    "frame_of_the_gateway": lambda peer, slot: peer.link.send(FrameType.CANCEL, slot, "x"),
    "too_few_fields": lambda peer, slot: peer.link.send(FrameType.ANSWER, slot),
    "not_a_frame": lambda peer, slot: peer.link.transport.write(b"\xff" * 64),
    "answer_to_nobody": lambda peer, slot: _answer(peer, 999, Answer(outcome="ok")),
    "response_to_a_turn": lambda peer, slot: peer.link.respond(slot),
    "nack_for_nobody": lambda peer, slot: peer.link.send(FrameType.NACK, 999, "draining"),
    "finished_for_a_turn": lambda peer, slot: peer.link.finish(slot),
    "credit_for_what_never_was": lambda peer, slot: peer.link.send(FrameType.CREDIT, 999, 1),
    "second_welcome": lambda peer, slot: peer.link.welcome(peer.name),
    "other_version": lambda peer, slot: peer.link.send(FrameType.WELCOME, 0, 99, "x", 1),
    "unknown_outcome": lambda peer, slot: peer.link.send(
        FrameType.ANSWER, slot, "excellent", {}, 1
    ),
    "malformed_events": lambda peer, slot: peer.link.send(
        FrameType.ANSWER, slot, "ok", {}, 1, body=b"\xc1"
    ),
    "a_turn_id_that_is_a_map": lambda peer, slot: peer.link.send(
        FrameType.ANSWER, slot, "ok", {"turn": {"a": 1}}, 1
    ),
    "keys_that_are_no_names": lambda peer, slot: peer.link.transport.write(
        b"\x00\x00\x00\x07\x00\x00\x00\x00\x95\x15\x01\xa0\x81\x01\x01"
    ),
    "negative_cpu": lambda peer, slot: peer.link.send(FrameType.ANSWER, slot, "ok", {}, -1),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_costs_the_link_and_loses_its_turn(name: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            asker.invoke()
            header, _ = await instance.next(FrameType.INVOKE)
            VIOLATIONS[name](instance, header[1])
            outcome = await asker.outcome()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()

            assert isinstance(outcome, Lost)
            assert asker.heard_nothing()

    run(main())


def test_a_second_answer_is_a_violation() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            asker = Asker(world)
            asker.invoke()
            header, _ = await instance.next(FrameType.INVOKE)
            _answer(instance, header[1], Answer(outcome="ok"))
            _answer(instance, header[1], Answer(outcome="ok"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()

            assert isinstance(await asker.outcome(), Answered)
            assert asker.heard_nothing()

    run(main())


def _respond_twice(peer: InstancePeer, slot: int) -> None:
    peer.link.respond(slot, headers=b"content-length: 9\r\n", more=True)
    peer.link.respond(slot, headers=b"content-length: 9\r\n", more=True)


def _respond_and_nack(peer: InstancePeer, slot: int) -> None:
    peer.link.respond(slot, headers=b"content-length: 9\r\n", more=True)
    peer.link.send(FrameType.NACK, slot, "draining")


def _grant_and_nack(peer: InstancePeer, slot: int) -> None:
    peer.link.send(FrameType.CREDIT, slot, 1)
    peer.link.send(FrameType.NACK, slot, "draining")


HTTP_VIOLATIONS: dict[str, Violation] = {
    "beyond_the_credit": lambda peer, slot: peer.link.respond(
        slot, bytes(wire.INITIAL_CREDIT + 1), more=True
    ),
    "second_response": _respond_twice,
    "body_before_response": lambda peer, slot: peer.link.continue_response(slot, b"x", more=True),
    "nack_after_response": _respond_and_nack,
    "nack_after_credit": _grant_and_nack,
    "credit_without_end": lambda peer, slot: peer.link.send(FrameType.CREDIT, slot, 1 << 31),
    "head_beyond_body": lambda peer, slot: peer.link.send(
        FrameType.RESPONSE, slot, 200, 100, 0, False, body=b"short"
    ),
    "unknown_framing": lambda peer, slot: peer.link.send(
        FrameType.RESPONSE, slot, 200, 1, 7, False, body=b"x"
    ),
    "answer_to_a_request": lambda peer, slot: _answer(peer, slot, Answer(outcome="ok")),
}


@pytest.mark.parametrize("name", HTTP_VIOLATIONS)
def test_a_violation_in_a_response_costs_the_link(name: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            HTTP_VIOLATIONS[name](instance, header[1])
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()
            data = await client.next_bytes()

            assert data.startswith((b"HTTP/1.1 502", b"HTTP/1.1 200")) or not data
            assert b"\r\n0\r\n\r\n" not in data

    run(main())


async def _call(world: World, instance: InstancePeer, call: int, operation: str) -> None:
    instance.link.send(FrameType.CALL, call, 0, operation, {"a": 1}, body=b"payload")
    await world.warm_again(instance)


def test_calls_are_carried_out_for_the_link_s_own_app() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            instance.link.send(FrameType.CALL, 7, 0, "run", {"app_": "other"}, body=b"payload")
            header, body = await instance.next(FrameType.REPLY)

            assert header[1:3] == [7, "ok"]
            assert header[3] == {"app": "app", "operation": "run", "app_": "other"}
            assert body == b"payload"

    run(main())


def test_a_call_that_fails_is_told_without_detail() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            instance.link.send(FrameType.CALL, 1, 0, "fail", {})
            header, _ = await instance.next(FrameType.REPLY)

            assert header[2] == "error"
            assert "secret" not in str(header)

    run(main())


def test_calls_are_bounded_and_end_with_their_link() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            for call in range(1, MAX_CALLS + 2):
                instance.link.send(FrameType.CALL, call, 0, "wait", {})
            header, _ = await instance.next(FrameType.REPLY)
            await world.warm_again(instance)
            await instance.die()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await world.calls.all_cancelled(MAX_CALLS)

            assert header[1:3] == [MAX_CALLS + 1, "unavailable"]

    run(main())


def test_the_number_of_a_call_under_way_cannot_be_used_twice() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            await _call(world, instance, 1, "wait")
            instance.link.send(FrameType.CALL, 1, 0, "wait", {})
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()

    run(main())


def test_an_instance_that_asks_and_does_not_listen_loses_its_link() -> None:
    """What it is told must not pile up here: replies are as long as what was asked."""

    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            instance.link.transport.pause_reading()
            payload = bytes(1024 * 1024)
            for call in range(1, 200):
                instance.link.send(FrameType.CALL, call, 0, "echo", {}, body=payload)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()

    run(main())
