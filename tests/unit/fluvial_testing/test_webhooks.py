"""Webhooks on the kit's engine: what workflows see of requests, and what senders are told, in the
three modes in which turns can continue."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, get_args

import pytest

import fluvial
from fluvial import Webhook, WebhookRequest, step, workflow
from fluvial.errors import InvalidRequestError, SerializationError
from fluvial.events import EventType
from fluvial.testing import Environment, Mode, StuckError, SyncEnvironment

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 25))).decode()


@dataclass
class Invoice:
    number: int
    paid: bool = False


Play = Callable[[Callable[[Environment], Awaitable[None]]], None]


@pytest.fixture(params=get_args(Mode))
def play(request: pytest.FixtureRequest) -> Play:
    def play_in_mode(scenario: Callable[[Environment], Awaitable[None]]) -> None:
        async def body() -> None:
            async with Environment(mode=request.param) as env:
                await scenario(env)

        asyncio.run(body())

    return play_in_mode


@step(name="kit.webhooks.publish")
async def publish(url: str) -> str:
    return url


@step(name="kit.webhooks.shout")
async def shout(request: WebhookRequest) -> str:
    with pytest.raises(InvalidRequestError, match="not answered here"):
        await request.respond()
    return request.text.upper()


@workflow(name="kit.webhooks.one")
async def one() -> list[Any]:
    async with Webhook() as hook:
        url = await publish(hook.url)
        request = await hook
    assert request.value is request
    assert url == hook.url
    return [request.method, request.path, request.query, request.headers, await shout(request)]


@workflow(name="kit.webhooks.bill")
async def bill() -> list[int]:
    numbers: list[int] = []
    async with Webhook(Invoice, timeout="1 h") as hook:
        await publish(hook.url)
        try:
            async for invoice in hook:
                numbers.append(invoice.number)
                if invoice.paid:
                    break
        except TimeoutError:
            numbers.append(-1)
    return numbers


@workflow(name="kit.webhooks.serve")
async def serve(until: int) -> int:
    count = 0
    async with Webhook(respond=True, metadata="a counter") as hook:
        await publish(hook.url)
        async for request in hook:
            count += 1
            answer = {"count": count, "said": await shout(request)}
            await request.respond(answer, status=201, headers={"X-Count": str(count)})
            if count == until:
                break
        await fluvial.sleep(1)
    return count


@workflow(name="kit.webhooks.add")
async def add() -> int:
    async with Webhook(Invoice, respond=True) as hook:
        async for request in hook.requests():
            await request.respond(bytes([255, request.value.number]))
            with pytest.raises(InvalidRequestError, match="once"):
                await request.respond()
            break
        invoice = await hook
    return invoice.number


@workflow(name="kit.webhooks.signed")
async def signed() -> list[str]:
    async with Webhook(secret=[OTHER, SECRET]) as hook:
        await publish(hook.url)
        return [(await hook).text, (await hook).text]


@workflow(name="kit.webhooks.mute")
async def mute() -> None:
    async with Webhook(respond=True) as hook:
        await hook


@workflow(name="kit.webhooks.deaf")
async def deaf() -> None:
    async with Webhook(respond=True):
        await fluvial.sleep(10)


@workflow(name="kit.webhooks.wrong")
async def wrong() -> str:
    async with Webhook(respond=True) as hook:
        request = await hook
        tries: list[Callable[[], Awaitable[None]]] = [
            lambda: request.respond(status=99),
            lambda: request.respond("text", status=204),
            lambda: request.respond({1, 2}),  # type: ignore[arg-type] # that is the point
            lambda: request.respond(headers={"content-length": "7"}),
            lambda: request.respond(headers={"x-fluvial-invocation-id": "7"}),
            lambda: request.respond(headers={"x": "a\r\nb: c"}),
            lambda: request.respond(headers={"a b": "c"}),
            lambda: request.respond(bytes(1024 * 1024 + 1)),
            lambda: request.respond(headers={f"x-{n}": "" for n in range(65)}),
        ]
        for attempt in tries:
            with pytest.raises(InvalidRequestError):
                await attempt()
        await request.respond(status=204)
    return "done"


def test_a_workflow_sees_the_request_as_it_was_sent(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(one)
        await env.until(run, step=publish)
        [url] = run.webhooks
        assert url.startswith("http://test.localhost/.well-known/fluvial/hooks/hook_")

        answer = await env.post(
            f"{url}/a%20b?x=1&y=", body=b"hello", method="PUT", headers={"X-A": "\xe9"}
        )

        assert (answer.status, answer.body) == (202, b"")
        assert await run.result() == ["PUT", "/a b", {"x": "1", "y": ""}, {"x-a": "\xe9"}, "HELLO"]
        assert (await env.post(url)).status == 410

    play(scenario)


def test_a_body_comes_as_the_type_that_the_webhook_takes(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(bill)
        await env.until(run, step=publish)
        [url] = run.webhooks
        assert (await env.post(url, {"number": 1})).status == 202
        assert (await env.post(url, {"number": "one"})).status == 422
        assert (await env.post(url, body=b"[")).status == 422
        assert (await env.post(url, body=b"[" * 100_000)).status == 422
        assert (await env.post(url, {"number": 2, "paid": True})).status == 202
        assert await run.result() == [1, 2]

    play(scenario)


def test_a_webhook_closes_when_its_time_is_over(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(bill)
        await env.until(run, step=publish)
        [url] = run.webhooks
        assert (await env.post(url, {"number": 1})).status == 202
        await env.advance("61m")
        assert (await env.post(url, {"number": 2})).status == 410
        assert await run.result() == [1, -1]

    play(scenario)


def test_a_workflow_answers_whoever_sends(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(serve, 3)
        await env.until(run, step=publish)
        [url] = run.webhooks
        first = await env.post(url, body=b"one")
        again = await env.post(url, body=b"two", headers={"webhook-id": "msg_2"})
        twice = await env.post(url, body=b"two", headers={"webhook-id": "msg_2"})
        await env.post(url, body=b"three")

        assert (first.status, first.json()) == (201, {"count": 1, "said": "ONE"})
        assert dict(first.headers) == {"x-count": "1", "content-type": "application/json"}
        assert again == twice
        assert again.json() == {"count": 2, "said": "TWO"}
        assert await run.result() == 3
        opened = run.log.of(EventType.HOOK_OPENED)[0]
        assert opened.value == "a counter"

    play(scenario)


def test_an_answer_may_be_bytes_and_a_typed_request_that_is_awaited_is_answered(
    play: Play,
) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(add)
        await env.until(run, event=EventType.HOOK_OPENED)
        [url] = run.webhooks
        answer = await env.post(url, {"number": 7})
        assert answer.body == b"\xff\x07"
        assert dict(answer.headers) == {"content-type": "application/octet-stream"}
        assert (await env.post(url, {"number": 8})).status == 202
        assert await run.result() == 8

    play(scenario)


def test_a_request_with_a_wrong_signature_never_gets_to_the_run(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(signed)
        await env.until(run, step=publish)
        [url] = run.webhooks
        length = len(run.log)
        refused = [
            await env.post(url, body=b"a"),
            await env.post(url, body=b"a", secret="whsec_" + "A" * 32),
            await env.post(url, body=b"a", headers={"webhook-signature": "v1,A"}),
        ]
        assert [answer.status for answer in refused] == [401] * 3
        assert len(run.log) == length

        headers = {"webhook-id": "msg_1"}
        assert (await env.post(url, body=b"b", headers=headers, secret=SECRET)).status == 202
        assert (await env.post(url, body=b"b", headers=headers, secret=SECRET)).status == 202
        assert (await env.post(url, body=b"c", secret=OTHER)).status == 202
        assert await run.result() == ["b", "c"]
        assert "whsec" not in repr(run.log.of(EventType.HOOK_OPENED)[0].value)

    play(scenario)


def test_who_waits_is_told_that_no_answer_comes(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        silent = await env.start(mute)
        await env.until(silent, event=EventType.HOOK_OPENED)
        assert (await env.post(silent.webhooks[0])).status == 502

        closed = await env.start(deaf)
        await env.until(closed, event=EventType.HOOK_OPENED)
        assert (await env.post(closed.webhooks[0])).status == 410

    play(scenario)


def test_an_answer_that_cannot_be_sent_is_refused_where_it_is_made(play: Play) -> None:
    async def scenario(env: Environment) -> None:
        run = await env.start(wrong)
        await env.until(run, event=EventType.HOOK_OPENED)
        answer = await env.post(run.webhooks[0])
        assert (answer.status, answer.headers, answer.body) == (204, (), b"")
        assert await run.result() == "done"

    play(scenario)


def test_what_is_no_request_does_not_become_one() -> None:
    async def scenario() -> None:
        async with Environment() as env:
            run = await env.start(one)
            await env.until(run, step=publish)
            await env.resume(run.open_hooks[0], {"method": "GET"})
            with pytest.raises(fluvial.RunFailedError) as failed:
                await run.result()
            assert isinstance(failed.value.__cause__, SerializationError)
            assert (await env.post("http://x/.well-known/fluvial/hooks/hook_1")).status == 404

    asyncio.run(scenario())


def test_a_webhook_has_no_url_before_it_is_open() -> None:
    with pytest.raises(InvalidRequestError, match="not open"):
        _ = Webhook().url
    with pytest.raises(InvalidRequestError, match="secret 1"):
        Webhook(secret="hunter2")
    with pytest.raises(InvalidRequestError, match="1 to 16 secrets"):
        Webhook(secret=[])


def test_tests_that_are_not_async_post_as_well() -> None:
    with SyncEnvironment() as env:
        run = env.start(serve, 1)
        env.until(run, step=publish)
        assert env.post(run.webhooks[0], {"a": 1}).json() == {"count": 1, "said": '{"A": 1}'}
        assert run.result() == 1


def test_an_answer_that_never_comes_is_a_stuck_test() -> None:
    @workflow(name="kit.webhooks.stuck")
    async def stuck() -> None:
        async with Webhook(respond=True) as hook:
            await hook
            await hook

    async def scenario() -> None:
        async with Environment() as env:
            run = await env.start(stuck)
            await env.until(run, event=EventType.HOOK_OPENED)
            with pytest.raises(StuckError):
                await env.post(run.webhooks[0])

    asyncio.run(scenario())
