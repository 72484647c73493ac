"""Requests to webhooks at the data plane: what is handed on, what is refused, and at what cost."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest

from fluvial.webhook_answers import WebhookAnswer
from fluvial.webhook_requests import MAX_BODY_BYTES
from fluvial.wire import FrameType
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.link_slots import RequestFields
from fluvial_gateway.webhook_exchanges import (
    NOT_FOUND,
    Accepted,
    WebhookCall,
    WebhookDesk,
    WebhookProblemError,
)
from tests.integration.gateway.gateway_peers import (
    GET,
    PATIENCE_SECONDS,
    Recorder,
    Response,
    open_world,
    run,
)

TOKEN = "hook_0000000000000000000000000_secret"
TAKEN = WebhookAnswer(202, (), b"")
PATH = f"/.well-known/fluvial/hooks/{TOKEN}"


def post(body: bytes = b"", *headers: str, path: str = PATH, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: app.localhost", *headers]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Receiver:
    """Takes what the token of this test is for, and answers as it is told."""

    given: WebhookAnswer = TAKEN
    problem: Problem | None = None
    defect: Exception | None = None
    waits: bool = False
    calls: list[tuple[WebhookCall, bytes]] = field(default_factory=list[tuple[WebhookCall, bytes]])
    is_asked: asyncio.Event = field(default_factory=asyncio.Event)
    was_cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self, call: WebhookCall) -> Accepted:
        if call.token != TOKEN:
            raise WebhookProblemError(NOT_FOUND)
        try:
            self.calls.append((call, await call.body()))
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise
        if self.problem is not None:
            raise WebhookProblemError(self.problem)
        return Accepted(run_id="run_", token=TOKEN, resume_id="", position=0, is_answered=True)

    async def answer(self, accepted: Accepted) -> WebhookAnswer:
        self.is_asked.set()
        if self.defect is not None:
            raise self.defect
        if self.waits:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.was_cancelled.set()
                raise
        return self.given


def code_of(response: Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/problem+json"
    return response.status, json.loads(response.body)["code"]


def test_a_request_is_handed_on_as_it_came() -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            headers = ["X-Mine: \xe4", "X-Fluvial-App: other", "Connection: x-hop", "X-Hop: 1"]
            client.send(post(b"body", *headers, path=f"{PATH}/a%20b/%FF?x=%20", method="PATCH"))
            response = await client.response()

            assert (response.status, response.body) == (202, b"")
            assert response.headers["x-fluvial-invocation-id"].startswith("inv_")
            call, body = receiver.calls[0]
            assert (call.app, call.token, call.method) == ("app", TOKEN, "PATCH")
            assert (call.path, call.query, body) == ("/a b/\ufffd", "x=%20", b"body")
            own = [pair for pair in call.headers if not pair[0].startswith(b"x-forwarded-")]
            assert own == [
                (b"host", b"app.localhost"),
                (b"x-mine", "\xe4".encode()),
                (b"content-length", b"4"),
            ]
            assert await world.recorder.next_http() == ("app", "ok", 0)
            assert world.spec_reads == 0  # no instance was looked for

    run(main())


@pytest.mark.parametrize(
    "host", ["app.localhost", "dpl-one.localhost", "shop.example.com", "localhost"]
)
def test_every_host_of_an_app_leads_to_its_webhooks(host: str) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            client.send(post(b"x").replace(b"app.localhost", host.encode()))
            assert (await client.response()).status == 202
            assert receiver.calls[0][0].app == "app"

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_may_come_in_pieces_and_up_to_its_limit(chunked: bool) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            body = b"x" * MAX_BODY_BYTES
            if chunked:
                framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                client.send(post(b"", "Transfer-Encoding: chunked") + framed)
            else:
                client.send(post(body))
            assert (await client.response()).status == 202
            assert receiver.calls[0][1] == body

            client.send(post(b"next"))  # the connection goes on
            assert (await client.response()).status == 202

    run(main())


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_refused(chunked: bool) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            body = b"x" * (MAX_BODY_BYTES + 1)
            if chunked:
                framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                client.send(post(b"", "Transfer-Encoding: chunked") + framed)
            else:
                client.send(post(body))
            assert code_of(await client.response()) == (413, "body_too_large")
            assert receiver.calls == []
            assert await world.recorder.next_http() == ("app", "refused", 0)

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/fluvial/",
        "/.well-known/fluvial/hooks",
        "/.well-known/fluvial/hooks/",
        "/.well-known/fluvial/hooks//",
        "/.well-known/fluvial/hooks/?a",
        "/.well-known/fluvial/hooks/%68ook",
        "/.well-known/fluvial/hooks/" + "a" * 257,
        "/.well-known/fluvial/hooks/a:b",
        "/.well-known/fluvial/other",
        "/.well-known/fluvial/hooks/../hooks/x",
        f"{PATH}x",
    ],
)
def test_what_is_no_webhook_is_not_found_whatever_its_form(path: str) -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            # The body is announced and never comes: nobody who knows no webhook may hold anything.
            client.send(post(b"", "Content-Length: 7", path=path))
            response = await client.response()
            assert code_of(response) == (404, "webhook_not_found")
            assert receiver.calls == []

    run(main())


def test_a_path_that_only_resembles_is_the_apps() -> None:
    async def main() -> None:
        async with open_world(webhooks=Receiver()) as world:
            instance = await world.warm()
            client = await world.client()
            client.send(post(path="/.well-known/fluvial"))
            client.send(post(path="/x/.well-known/fluvial/hooks/a"))
            for target in (b"/.well-known/fluvial", b"/x/.well-known/fluvial/hooks/a"):
                header, _ = await instance.next(FrameType.REQUEST)
                assert header[4] == target
                instance.link.respond(header[1])
                assert (await client.response()).status == 200

    run(main())


def test_a_body_that_is_held_back_is_asked_for_once_the_webhook_is_found() -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            client.send(post(b"", "Expect: 100-continue", "Content-Length: 4"))
            assert await client.head() == (100, {})
            client.send(b"body")
            assert (await client.response()).status == 202
            assert receiver.calls[0][1] == b"body"

            stranger = await world.client()
            stranger.send(post(b"", "Expect: 100-continue", "Content-Length: 4", path=PATH + "x"))
            response = await stranger.response()
            assert response.status == 404  # and not 100
            assert response.headers["connection"] == "close"

    run(main())


def test_the_workflows_answer_leaves_as_it_is() -> None:
    async def main() -> None:
        answer = WebhookAnswer.of({"a": "\xe4"}, 418, {"X-A": "\xe4"})
        async with open_world(webhooks=Receiver(given=answer)) as world:
            client = await world.client()
            client.send(post(b"x") + post(method="HEAD") + GET)
            response = await client.response()
            assert (response.status, response.body) == (418, '{"a":"\xe4"}'.encode())
            assert response.headers["x-a"] == "\xe4"
            assert response.headers["content-type"] == "application/json"
            without = await client.response(head_only=True)
            assert without.headers["content-length"] == response.headers["content-length"]
            # What follows on the connection is an ordinary request.
            instance = await world.invoker.next_instance()
            header, _ = await instance.next(FrameType.REQUEST)
            instance.link.respond(header[1])
            assert (await client.response()).status == 200

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_has_no_length(status: int) -> None:
    async def main() -> None:
        receiver = Receiver(given=WebhookAnswer.of(b"", status, {}))
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            client.send(post() + post())
            for _ in range(2):
                response = await client.response()
                assert response.status == status
                assert "content-length" not in response.headers

    run(main())


def test_an_answer_that_could_fool_a_client_is_not_sent() -> None:
    async def main() -> None:
        receiver = Receiver(given=WebhookAnswer(200, (("x", "1\r\ncontent-length: 9"),), b""))
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            client.send(post())
            assert code_of(await client.response()) == (502, "bad_response")

    run(main())


def test_a_refusal_and_a_defect_are_told_and_the_connection_goes_on() -> None:
    async def main() -> None:
        refusal = Problem(status=401, code="webhook_signature", detail="no")
        receiver = Receiver(problem=refusal)
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            client.send(post(b"x"))
            assert code_of(await client.response()) == (401, "webhook_signature")
            receiver.problem, receiver.defect = None, ValueError("a bug")
            client.send(post(b"x"))
            response = await client.response()
            assert code_of(response) == (500, "internal")
            assert b"a bug" not in response.body
            assert await world.recorder.next_http() == ("app", "refused", 0)
            assert await world.recorder.next_http() == ("app", "error", 0)

    run(main())


def test_a_client_that_leaves_is_not_waited_for() -> None:
    async def main() -> None:
        receiver = Receiver(waits=True)
        async with open_world(webhooks=receiver) as world:
            async with asyncio.timeout(PATIENCE_SECONDS):
                waiting = await world.client()
                waiting.send(post(b"x"))
                await receiver.is_asked.wait()
                waiting.close()
                await receiver.was_cancelled.wait()

                receiver.was_cancelled.clear()
                sending = await world.client()
                sending.send(post(b"", "Expect: 100-continue", "Content-Length: 4"))
                await sending.head()
                sending.close()
                await receiver.was_cancelled.wait()
            assert len(receiver.calls) == 1

    run(main())


class NoClient:
    """A connection that is about to be lost."""

    def invocation_placed(self) -> None: ...
    def request_credited(self) -> None: ...
    def response_refused(self, problem: Problem) -> None: ...
    def response_failed(self, reason: Unavailable) -> None: ...
    def response_continued(self, chunk: bytes, more: bool) -> None: ...
    def response_started(
        self, status: int, framing: int, head: bytes, chunk: bytes, more: bool
    ) -> None: ...


def test_a_client_that_leaves_at_once_leaves_nothing_behind() -> None:
    async def main() -> None:
        desk = WebhookDesk(Receiver(), Recorder())
        fields: RequestFields = ("inv_1", "POST", PATH.encode(), [], None, "http", "1.1")
        exchange = desk.exchange("app", NoClient(), fields)
        exchange.open(b"body", more=True)
        exchange.feed(b"more", more=True)
        assert desk.held_bytes == 8
        exchange.detach("gone")  # before its task has begun
        assert desk.held_bytes == 0
        await desk.close()

    run(main())


def test_no_more_are_under_way_than_the_limit() -> None:
    async def main() -> None:
        receiver = Receiver(waits=True)
        async with open_world(webhooks=receiver, max_webhooks=1) as world:
            first, second = await world.client(), await world.client()
            first.send(post(b"x"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await receiver.is_asked.wait()
            second.send(post(b"x"))
            response = await second.response()
            assert code_of(response) == (503, "overloaded")
            assert response.headers["retry-after"] == "1"

    run(main())


def test_a_websockets_handshake_is_a_request_without_a_body() -> None:
    async def main() -> None:
        receiver = Receiver()
        async with open_world(webhooks=receiver) as world:
            client = await world.client()
            upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
            key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
            client.send(post(b"", *upgrade, key, method="GET"))

            assert (await client.response()).status == 202
            assert len(receiver.calls) == 1

    run(main())
