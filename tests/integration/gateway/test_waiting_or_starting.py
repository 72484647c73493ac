"""Whether another instance is started, who is refused, and how many are kept."""

from __future__ import annotations

import asyncio
import json

from fluvial.wire import FrameType
from fluvial_gateway.pool_contract import PoolLimits
from tests.integration.gateway.gateway_peers import (
    DEPLOYMENT,
    GET,
    PATIENCE_SECONDS,
    Client,
    InstancePeer,
    open_world,
    run,
    spec,
)

FAST = 0.01


async def _served(instance: InstancePeer, client: Client) -> int:
    header = await instance.next_request()
    instance.link.respond(header[1])
    return (await client.response()).status


def test_a_request_that_waits_longer_than_a_start_takes_gets_an_instance() -> None:
    async def main() -> None:
        async with open_world(deployment=spec(max_concurrency=1)) as world:
            held = [(await world.warm(), await world.client())]
            held[0][1].send(GET)
            for _ in range(2):  # what runs ends only when these have been served elsewhere
                client = await world.client()
                client.send(GET)
                held.append((await world.invoker.next_instance(), client))
            statuses = [await _served(instance, client) for instance, client in reversed(held)]

            assert statuses == [200, 200, 200]

    run(main())


def test_a_crowd_starts_no_more_than_the_burst_at_once() -> None:
    limits = PoolLimits(
        resolution_seconds=FAST, deployment_burst=2, deployment_starts_per_second=1000.0
    )
    deployment = spec(max_concurrency=1, max_instances=6)

    async def main() -> None:
        async with open_world(pool_limits=limits, deployment=deployment) as world:
            clients = [await world.client() for _ in range(6)]
            for client in clients:
                client.send(GET)
            # What the budget holds back comes when it has filled again; none ends before that.
            instances = [await world.invoker.next_instance() for _ in clients]
            held = [(await instance.next_request())[1] for instance in instances]
            for instance, number in zip(instances, held, strict=True):
                instance.link.respond(number)

            assert [(await client.response()).status for client in clients] == [200] * 6

    run(main())


def test_a_full_queue_is_a_503_that_says_when_to_come_back() -> None:
    limits = PoolLimits(resolution_seconds=FAST, queue_length=1)
    deployment = spec(max_concurrency=1, max_instances=1)

    async def main() -> None:
        async with open_world(pool_limits=limits, deployment=deployment) as world:
            instance = await world.warm()
            running, waiting, refused = [await world.client() for _ in range(3)]
            running.send(GET)
            held = await instance.next_request()
            waiting.send(GET)
            await world.recorder.waits(1)
            refused.send(GET)
            answer = await refused.response()
            instance.link.respond(held[1])

            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert json.loads(answer.body)["code"] == "overloaded"
            assert (await running.response()).status == 200
            assert await _served(instance, waiting) == 200

    run(main())


def test_who_would_wait_in_vain_is_refused_at_once() -> None:
    now = [1000.0]
    limits = PoolLimits(resolution_seconds=FAST, queue_seconds=30.0)
    deployment = spec(max_concurrency=1, max_instances=1)

    async def main() -> None:
        async with open_world(
            pool_limits=limits, deployment=deployment, clock=lambda: now[0]
        ) as world:
            instance = await world.warm()
            clients = [await world.client() for _ in range(12)]
            for client in clients:
                client.send(GET)
            await world.recorder.waits(11)
            for client in clients[:9]:  # each takes three seconds, as is learned
                header = await instance.next_request()
                now[0] += 3.0
                instance.link.respond(header[1])
                assert (await client.response()).status == 200
            more = [await world.client() for _ in range(12)]
            for client in more:
                client.send(GET)
            answer = await more[-1].response()

            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 30
            assert world.recorder.waiting < 12

    run(main())


def test_kept_instances_are_started_without_a_request_and_replaced() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.router.keep({DEPLOYMENT: 1})
            first = await world.invoker.next_instance()
            kept, _ = await first.next(FrameType.KEEP)
            await first.die()
            world.invoker.tell_dead(first.name, "signal:9")
            second = await world.invoker.next_instance()
            await second.next(FrameType.KEEP)
            client = await world.client()
            client.send(GET)

            assert kept[2] is True
            assert await _served(second, client) == 200

    run(main())


def test_what_is_not_kept_any_more_may_retire() -> None:
    async def main() -> None:
        async with open_world() as world:
            world.router.keep({DEPLOYMENT: 1})
            instance = await world.invoker.next_instance()
            await instance.next(FrameType.KEEP)
            world.router.keep({})
            released, _ = await instance.next(FrameType.KEEP)
            instance.link.send(FrameType.GOAWAY, 0, "idle")
            async with asyncio.timeout(PATIENCE_SECONDS):
                await instance.link.lost.wait()

            assert released[2] is False
            assert world.invoker.instances == [instance]

    run(main())
