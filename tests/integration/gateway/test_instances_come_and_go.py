"""Starting, refusing, draining and dying instances, seen by HTTP clients."""

from __future__ import annotations

import asyncio
import json

import pytest

from fluvial.wire import FrameType, Framing
from fluvial_gateway.invoker_client import RefusedError
from fluvial_gateway.pool_contract import PoolLimits
from tests.integration.gateway.gateway_peers import (
    GET,
    PATIENCE_SECONDS,
    InstancePeer,
    open_world,
    run,
    spec,
)

FAST = PoolLimits(resolution_seconds=0.01)


def _never_ready(peer: InstancePeer) -> None:
    peer.welcomes = False


@pytest.mark.parametrize("reason", ["idle", "signal:9"])
def test_an_instance_that_dies_before_it_is_ready_costs_nobody_a_request(reason: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.prepare.append(_never_ready)
            client = await world.client()
            client.send(GET)
            first = await world.invoker.next_instance()
            await first.next(FrameType.REQUEST)
            await first.die()
            world.invoker.tell_dead(first.name, reason)
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.REQUEST)
            second.link.respond(header[1])

            assert (await client.response()).status == 200

    run(main())


def _dead(peer: InstancePeer) -> None:
    peer.is_dead = True


def test_a_warm_instance_that_has_just_died_costs_nobody_a_request() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.tier = "warm"
            world.invoker.prepare.append(_dead)
            client = await world.client()
            client.send(GET)
            first = await world.invoker.next_instance()
            world.invoker.tell_dead(first.name, "signal:9")
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.REQUEST)
            second.link.respond(header[1])

            assert (await client.response()).status == 200

    run(main())


def test_an_instance_that_is_handed_out_twice_is_dialled_once() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_concurrency=1, max_instances=2)) as world:
            world.invoker.gate = asyncio.Event()
            world.invoker.repeats = 1
            clients = [await world.client() for _ in range(2)]
            for client in clients:
                client.send(GET)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while len(world.invoker.excluded) < 2:
                    world.invoker.asked.clear()
                    await world.invoker.asked.wait()
            world.invoker.gate.set()
            for _ in clients:
                instance = await world.invoker.next_instance()
                header, _ = await instance.next(FrameType.REQUEST)
                instance.link.respond(header[1])

            assert [(await client.response()).status for client in clients] == [200, 200]
            assert [len(each.links) for each in world.invoker.instances] == [1, 1]

    run(main())


def test_a_safe_request_whose_instance_dies_is_made_once_more() -> None:
    async def main() -> None:
        async with open_world() as world:
            first = await world.warm()
            clients = [await world.client() for _ in range(2)]
            for client in clients:
                client.send(GET)
                await first.next(FrameType.REQUEST)
            await first.die()
            second = await world.invoker.next_instance()
            headers = [(await second.next(FrameType.REQUEST))[0] for _ in clients]
            second.link.respond(headers[0][1])
            await world.recorder.next_http()
            await second.die()
            statuses = [(await client.response()).status for client in clients]

            assert sorted(statuses) == [200, 502]
            assert world.invoker.instances == [first, second]

    run(main())


def test_an_instance_that_dies_with_a_request_is_a_502() -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET.replace(b"GET", b"POST"))
            await instance.next(FrameType.REQUEST)
            await instance.die()
            response = await client.response()

            assert response.status == 502
            assert json.loads(response.body)["code"] == "instance_died"
            assert await world.recorder.next_http() == ("app", "lost", 0)

    run(main())


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_instance_that_dies_in_a_response_breaks_it(version: bytes) -> None:
    async def main() -> None:
        async with open_world() as world:
            instance = await world.warm()
            client = await world.client()
            client.send(b"GET / HTTP/" + version + b"\r\nHost: app.localhost\r\n\r\n")
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1], b"half", framing=Framing.STREAM, more=True)
            await client.head()
            await instance.die()

            assert await client.was_reset()

    run(main())


def test_after_a_death_the_next_request_starts_another_instance() -> None:
    async def main() -> None:
        async with open_world() as world:
            first = await world.warm()
            await first.die()
            client = await world.client()
            client.send(GET)
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.REQUEST)
            second.link.respond(header[1])

            assert (await client.response()).status == 200
            assert world.recorder.states == {"starting": 0, "ready": 1}

    run(main())


def test_a_goaway_finishes_what_runs_and_takes_no_more() -> None:
    async def main() -> None:
        async with open_world() as world:
            first = await world.warm()
            old = await world.client()
            old.send(GET)
            under_way, _ = await first.next(FrameType.REQUEST)
            first.link.send(FrameType.GOAWAY, 0, "idle")
            first.link.respond(under_way[1], b"finished")
            finished = await old.response()
            old.send(GET)
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.REQUEST)
            second.link.respond(header[1], b"elsewhere")

            assert finished.body == b"finished"
            assert (await old.response()).body == b"elsewhere"
            assert first.no_frame()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await first.link.lost.wait()  # an instance that retires waits for this

    run(main())


@pytest.mark.parametrize("reason_first", [True, False])
def test_an_import_failure_is_told_without_its_text(reason_first: bool) -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.prepare.append(_never_ready)
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            await instance.next(FrameType.REQUEST)
            reason = "import_failed: No module named 'secret_module'"
            if reason_first:
                world.invoker.tell_dead(instance.name, reason)
            await instance.die()
            if not reason_first:
                world.invoker.tell_dead(instance.name, reason)
            response = await client.response()
            client.send(GET)  # at once: the next start is held back, the answer is not
            again = await client.response()

            for answer in (response, again):
                assert answer.status == 502
                assert json.loads(answer.body)["code"] == "import_failed"
                assert b"secret_module" not in answer.body
            assert len(world.invoker.instances) == 1

    run(main())


@pytest.mark.parametrize(
    ("reason", "status"), [("bundle_missing", 502), ("start_failed", 502), ("denied", 502)]
)
def test_a_refused_start_is_told(reason: str, status: int) -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.refusals.append(RefusedError(reason, "private detail"))
            client = await world.client()
            client.send(GET)
            response = await client.response()

            assert response.status == status
            assert json.loads(response.body)["code"] == reason
            assert b"private" not in response.body

    run(main())


@pytest.mark.parametrize("reason", ["capacity", "shutting_down"])
def test_a_start_refused_for_now_is_tried_again(reason: str) -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.refusals.append(RefusedError(reason, ""))
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])

            assert (await client.response()).status == 200

    run(main())


def test_a_nack_for_concurrency_waits_for_room() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance = await world.warm()
            first, second = await world.client(), await world.client()
            first.send(GET)
            running, _ = await instance.next(FrameType.REQUEST)
            second.send(GET)
            refused, _ = await instance.next(FrameType.REQUEST)
            instance.link.send(FrameType.NACK, refused[1], "concurrency")
            instance.link.respond(running[1])
            again, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(again[1])

            assert (await first.response()).status == 200
            assert (await second.response()).status == 200
            assert world.recorder.nacks == ["concurrency"]

    run(main())


def test_a_nack_for_concurrency_of_an_instance_that_others_fill_is_tried_again() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=1)) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(GET)
            refused, _ = await instance.next(FrameType.REQUEST)
            instance.link.send(FrameType.NACK, refused[1], "concurrency")
            again, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(again[1])

            assert (await client.response()).status == 200

    run(main())


def test_work_is_spread_up_to_max_instances_and_then_waits() -> None:
    async def main() -> None:
        deployment = spec(max_instances=2, max_concurrency=1)
        async with open_world(deployment=deployment) as world:
            clients = [await world.client() for _ in range(3)]
            for client in clients:
                client.send(GET)
            instances = [await world.invoker.next_instance() for _ in range(2)]
            headers = [await instance.next(FrameType.REQUEST) for instance in instances]
            assert world.recorder.waiting == 1
            instances[0].link.respond(headers[0][0][1])
            last, _ = await instances[0].next(FrameType.REQUEST)
            instances[0].link.respond(last[1])
            instances[1].link.respond(headers[1][0][1])

            assert [(await client.response()).status for client in clients] == [200] * 3
            assert len(world.invoker.instances) == 2
            assert world.recorder.waiting == 0

    run(main())


def test_one_start_is_enough_for_what_one_instance_can_take() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_instances=8, max_concurrency=10)) as world:
            world.invoker.gate = asyncio.Event()
            clients = [await world.client() for _ in range(10)]
            for client in clients:
                client.send(GET)
            await world.invoker.asked.wait()
            world.invoker.gate.set()
            instance = await world.invoker.next_instance()
            for _ in clients:
                header, _ = await instance.next(FrameType.REQUEST)
                instance.link.respond(header[1])

            assert [(await client.response()).status for client in clients] == [200] * 10
            assert len(world.invoker.excluded) == 1

    run(main())


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def main() -> None:
        limits = PoolLimits(queue_length=2, resolution_seconds=0.01)
        async with open_world(pool_limits=limits) as world:
            world.invoker.gate = asyncio.Event()
            clients = [await world.client() for _ in range(3)]
            for client in clients:
                client.send(GET)
            answered, waiting = await asyncio.wait(
                [asyncio.ensure_future(client.response()) for client in clients],
                return_when=asyncio.FIRST_COMPLETED,
            )
            world.invoker.gate.set()
            instance = await world.invoker.next_instance()
            for _ in range(2):
                header, _ = await instance.next(FrameType.REQUEST)
                instance.link.respond(header[1])
            await asyncio.wait(waiting)
            (refused,) = answered

            assert refused.result().status == 503
            assert json.loads(refused.result().body)["code"] == "overloaded"
            assert refused.result().headers["retry-after"] == "1"
            assert [task.result().status for task in waiting] == [200, 200]

    run(main())


def test_waiting_ends_at_the_deadline() -> None:
    async def main() -> None:
        limits = PoolLimits(queue_seconds=0.05, resolution_seconds=0.01)
        async with open_world(pool_limits=limits) as world:
            world.invoker.gate = asyncio.Event()
            client = await world.client()
            client.send(GET)
            response = await client.response()

            assert response.status == 504
            assert json.loads(response.body)["code"] == "queue_timeout"
            assert await world.recorder.next_http() == ("app", "refused", 0)
            assert world.recorder.waiting == 0

    run(main())


def test_who_leaves_the_queue_is_not_sent() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.invoker.gate = asyncio.Event()
            leaver, stayer = await world.client(), await world.client()
            leaver.send(GET.replace(b" / ", b" /leaver "))
            await world.invoker.asked.wait()
            leaver.close()
            stayer.send(GET.replace(b" / ", b" /stayer "))
            assert await world.recorder.next_http() == ("app", "cancelled", 0)
            world.invoker.gate.set()
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            await stayer.response()

            assert header[4] == b"/stayer"
            assert instance.no_frame()

    run(main())


def test_an_invocation_that_does_not_yield_costs_its_instance_the_life() -> None:
    async def main() -> None:
        limits = PoolLimits(
            cancel_grace_seconds=0.02, stuck_drain_seconds=10, resolution_seconds=0.01
        )
        deployment = spec(max_duration_seconds=0.05)
        async with open_world(pool_limits=limits, deployment=deployment) as world:
            client = await world.client()
            client.send(GET)
            instance = await world.invoker.next_instance()
            await instance.next(FrameType.REQUEST)
            assert (await client.response()).status == 504
            await instance.next(FrameType.CANCEL)
            async with asyncio.timeout(5):
                await world.invoker.kill_asked.wait()
            await instance.die()

            assert world.invoker.killed[0] == instance.name
            assert await world.recorder.next_http() == ("app", "timeout", 0)

    run(main())


def test_an_instance_that_does_not_get_ready_is_killed_and_its_work_goes_elsewhere() -> None:
    async def main() -> None:
        limits = PoolLimits(ready_seconds=0.02, resolution_seconds=0.01)
        async with open_world(pool_limits=limits) as world:
            world.invoker.prepare.append(_never_ready)
            client = await world.client()
            client.send(GET)
            first = await world.invoker.next_instance()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await first.link_lost()
            world.invoker.tell_dead(first.name, "idle")
            second = await world.invoker.next_instance()
            header, _ = await second.next(FrameType.REQUEST)
            second.link.respond(header[1])

            assert (await client.response()).status == 200
            assert world.invoker.killed == [first.name]

    run(main())


def test_a_failing_source_of_specs_is_told_and_not_hammered() -> None:
    async def main() -> None:
        async with open_world(spec_fails=True) as world:
            client = await world.client()
            client.send(GET)
            response = await client.response()

            assert response.status == 503
            assert json.loads(response.body)["code"] == "unavailable"
            assert world.spec_reads == 1

    run(main())


def test_scale_to_zero_and_back_loses_nothing() -> None:
    async def main() -> None:
        async with open_world() as world:
            client = await world.client()
            for _ in range(20):
                client.send(GET)
                instance = await world.invoker.next_instance()
                header, _ = await instance.next(FrameType.REQUEST)
                instance.link.send(FrameType.GOAWAY, 0, "idle")
                instance.link.respond(header[1])
                assert (await client.response()).status == 200
                await instance.die()
                world.invoker.tell_dead(instance.name, "idle")

            assert len(world.invoker.instances) == 20

    run(main())
