"""Webhooks on the whole path: HTTP, store, dispatcher, instances; on each store."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook as Signer

import fluvial
from fluvial import Hook, Webhook
from fluvial.encryption import public_key_of
from fluvial.events import EventType
from fluvial.hook_tokens import secret_token
from fluvial.ids import new_run_id
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.hook_answers import HookAnswers
from fluvial_gateway.hooks import Hooks
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Runs
from fluvial_gateway.talking import Talking
from fluvial_gateway.webhook_instances import WebhookInstances
from fluvial_gateway.webhooks import Webhooks
from fluvial_queue.contract import RunStatus
from fluvial_queue.hook_contract import FoundHook
from fluvial_queue.messages import MessageKind
from fluvial_queue.records import AppRecord
from tests.integration.gateway.gateway_peers import Client, Response, World, open_world
from tests.integration.in_process import APP, ROOTS, Application

if TYPE_CHECKING:
    from tests.integration.conftest import PlayOn

SECRET = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 25))).decode()


@dataclass
class Order:
    number: int


@fluvial.workflow(name="webhooks.collect")
async def collect(until: int, secret: Any = None) -> list[str]:
    texts: list[str] = []
    async with Webhook(secret=secret) as hook:
        async for request in hook:
            texts.append(request.text)
            if len(texts) == until:
                break
    await Hook(name="end")
    return texts


@fluvial.workflow(name="webhooks.serve")
async def serve(until: int) -> int:
    served = 0
    async with Webhook(respond=True) as hook:
        async for request in hook:
            served += 1
            await request.respond(request.body + b"!", status=201, headers={"x-n": str(served)})
            if served == until:
                break
    return served


@fluvial.workflow(name="webhooks.mute")
async def mute() -> None:
    async with Webhook(respond=True) as hook:
        request = await hook
        await Hook(name="go")
        await request.respond("late")
        await Hook(name="end")


@fluvial.workflow(name="webhooks.typed")
async def typed() -> int:
    async with Webhook(Order) as hook:
        return (await hook).number


@fluvial.workflow(name="webhooks.others")
async def others() -> None:
    async with Hook(), Hook(name="named"), Hook(token="chosen"):
        await Hook(name="end")


class Served:
    """An application behind a real data plane."""

    def __init__(self, app: Application, *, answer_seconds: float) -> None:
        self.app = app
        self.catalogue = Catalogue(app.store)
        runs = Runs(app.store, self.catalogue, app.dispatcher, Fingerprints(b"k" * 32))
        hooks = Hooks(app.store, self.catalogue, runs)
        self.hooks, self.talking = hooks, Talking(runs, hooks)
        self.webhooks = Webhooks(
            runs,
            hooks,
            self.catalogue,
            HookAnswers(runs),
            WebhookInstances(app.instances),
            answer_seconds=answer_seconds,
        )
        self.world: World

    async def save(self, **changes: Any) -> None:
        """Write the app's record."""
        found = await self.catalogue.find_app(APP)
        record = AppRecord(app=APP, key_id="k1", public_key=public_key_of(ROOTS["k1"], APP))
        version = 0 if found is None else found.version
        assert await self.catalogue.save_app(replace(record, **changes), expect=version)

    async def opened(self, workflow: Any, *args: Any) -> tuple[str, str]:
        """Start a run that opens a webhook; return its id and the webhook's path."""
        run_id = await self.app.start(workflow, *args)
        await self.app.wait_for_kind(run_id, EventType.HOOK_OPENED)
        events = await self.app.events(run_id)
        token = next(e.meta["token"] for e in events if e.type is EventType.HOOK_OPENED)
        return run_id, f"/.well-known/fluvial/hooks/{token}"

    async def send(
        self, path: str, body: bytes = b"", host: str = "app.localhost", **headers: str
    ) -> Client:
        """Send a request; the client reads the response."""
        client = await self.world.client()
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head = [f"POST {path} HTTP/1.1", f"host: {host}", f"content-length: {len(body)}", *lines]
        client.send("\r\n".join([*head, "", ""]).encode() + body)
        return client

    async def post(self, path: str, body: bytes = b"", **headers: str) -> Response:
        """Send a request and return the response."""
        return await (await self.send(path, body, **headers)).response()

    async def code(self, path: str, body: bytes = b"", **headers: str) -> tuple[int, str]:
        """Send a request that is refused."""
        response = await self.post(path, body, **headers)
        return response.status, json.loads(response.body)["code"]


PlayServed = Callable[..., None]


@pytest.fixture
def play(play_application: PlayOn) -> PlayServed:
    def play(main: Callable[[Served], Awaitable[None]], *, answer_seconds: float = 20.0) -> None:
        async def body(app: Application) -> None:
            served = Served(app, answer_seconds=answer_seconds)
            await served.save()
            async with open_world(webhooks=served.webhooks) as served.world:
                await main(served)

        play_application(body)

    return play


def signed(secret: str, message: str, body: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "webhook_id": message,
        "webhook_timestamp": str(int(now.timestamp())),
        "webhook_signature": Signer(secret).sign(message, now, body),
    }


def test_each_request_that_is_accepted_gets_to_the_run_once(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 20)
        texts = [f"text {number}" for number in range(20)]
        twice = [text for text in texts for _ in range(2)]
        responses = await asyncio.gather(
            *(served.post(path, text.encode(), webhook_id=text[5:]) for text in twice)
        )
        assert [response.status for response in responses] == [202] * 40
        await served.app.wait_for_kind(run_id, EventType.HOOK_OPENED, 2)
        received = [e for e in await served.app.events(run_id) if e.type is EventType.HOOK_RECEIVED]
        assert len(received) == 20
        assert b"text" not in b"".join(event.payload for event in received)

    play(main)


def test_each_sender_gets_its_own_answer(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(serve, 10)
        texts = [f"text {number}".encode() for number in range(10)]
        responses = await asyncio.gather(*(served.post(path, text) for text in texts))
        assert [response.status for response in responses] == [201] * 10
        assert [response.body for response in responses] == [text + b"!" for text in texts]
        numbers = sorted(int(response.headers["x-n"]) for response in responses)
        assert numbers == list(range(1, 11))
        assert await served.app.result(run_id) == 10

    play(main)


def test_what_races_with_the_close_is_either_taken_in_or_refused(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 20)
        responses = await asyncio.gather(
            *(served.post(path, f"text {number}".encode()) for number in range(60))
        )
        statuses = [response.status for response in responses]
        accepted = statuses.count(202)
        assert set(statuses) <= {202, 410}
        assert accepted >= 20
        await served.app.wait_for_kind(run_id, EventType.HOOK_RECEIVED, accepted)
        await served.app.wait_for_kind(run_id, EventType.HOOK_OPENED, 2)
        assert (await served.app.kinds(run_id)).count(EventType.HOOK_RECEIVED) == accepted

    play(main)


def test_each_sender_hears_something_when_the_run_ends_among_them(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(serve, 20)
        responses = await asyncio.gather(
            *(served.post(path, f"text {number}".encode()) for number in range(60))
        )
        statuses = [response.status for response in responses]
        assert statuses.count(201) == 20
        assert set(statuses) <= {201, 404, 410, 502}
        assert await served.app.result(run_id) == 20

    play(main)


def test_what_a_stranger_knows_not_is_not_found_and_costs_one_question(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 1)
        other_id, _ = await served.opened(others)
        ended_id, ended = await served.opened(typed)
        assert (await served.post(ended, b'{"number": 7}')).status == 202
        assert await served.app.result(ended_id) == 7
        openings = [e for e in await served.app.events(other_id) if e.type is EventType.HOOK_OPENED]
        tokens = [
            secret_token(run_id, bytes(15)),  # a run that exists, a wrong secret
            secret_token(new_run_id(served.app.store.partitions), bytes(15)),
            secret_token("run_" + "z" * 26, bytes(15)),  # in a partition that is none
            secret_token(ended_id, bytes(15)),
            *(str(event.meta["token"]) for event in openings),
            "chosen",
            "x" * 200,
        ]
        asked: list[str] = []
        find = served.app.store.find_hook

        async def counted(run_id: str, token: str) -> FoundHook:
            asked.append(token)
            return await find(run_id, token)

        served.app.store.find_hook = counted  # type: ignore[method-assign] # it only counts
        bodies: set[bytes] = set()
        for token in tokens:
            response = await served.post(f"/.well-known/fluvial/hooks/{token}")
            assert response.status == 404
            document = json.loads(response.body)
            del document["invocation"]
            bodies.add(json.dumps(document).encode())
        assert len(bodies) == 1
        assert set(asked[:3]) <= set(tokens)
        assert len(asked) == len(set(asked))
        assert (await served.post(ended)).status == 404
        assert (await served.code(path, host="gone.localhost"))[0] == 404  # another app's name

    play(main)


def test_a_webhook_that_is_closed_is_gone_while_its_run_goes_on(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 1)
        assert (await served.post(path, b"one")).status == 202
        await served.app.wait_for_kind(run_id, EventType.HOOK_CLOSED)
        assert await served.code(path, b"two") == (410, "webhook_gone")

    play(main)


def test_a_sender_hears_of_a_run_that_ends_without_an_answer(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(mute)
        first = await served.send(path, b"one")
        await served.app.wait_for_kind(run_id, EventType.HOOK_RECEIVED)
        await served.app.send(MessageKind.TERMINATE, run_id)
        response = await first.response()
        assert response.status == 502
        assert json.loads(response.body)["code"] == "webhook_unanswered"

    play(main)


def test_an_answer_that_comes_late_is_got_by_asking_again(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(mute)
        for _ in range(2):
            assert await served.code(path, b"x", webhook_id="m") == (504, "webhook_timeout")
        await served.app.wait_for_kind(run_id, EventType.HOOK_OPENED, 2)
        record = await served.app.record(run_id)
        await served.talking.say_json(record, "go", None, "r", asks=False, seconds=0)
        await served.app.wait_for_kind(run_id, EventType.HOOK_ANSWERED)
        assert (await served.post(path, b"x", webhook_id="m")).body == b"late"
        assert (await served.app.kinds(run_id)).count(EventType.HOOK_RECEIVED) == 2

    play(main, answer_seconds=0.05)


def test_a_signature_is_checked_before_anything_gets_to_the_run(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 2, [OTHER, SECRET])
        length = len(await served.app.events(run_id))
        right = signed(SECRET, "msg_1", "one")
        stale = {**right, "webhook_timestamp": "1614265330"}
        for body, headers in [
            (b"one", {}),
            (b"two", right),
            (b"one", stale),
            (b"one", {**right, "webhook_id": "msg_2"}),
            (b"one", signed("whsec_" + "A" * 32, "msg_1", "one")),
        ]:
            assert await served.code(path, body, **headers) == (401, "webhook_signature")
        assert len(await served.app.events(run_id)) == length
        record = await served.app.record(run_id)
        assert record.status is RunStatus.RUNNING

        for message, secret in (("msg_1", SECRET), ("msg_1", SECRET), ("msg_2", OTHER)):
            text = message.replace("_", " ")
            response = await served.post(path, text.encode(), **signed(secret, message, text))
            assert response.status == 202
        await served.app.wait_for_kind(run_id, EventType.HOOK_OPENED, 2)
        assert (await served.app.kinds(run_id)).count(EventType.HOOK_RECEIVED) == 2

    play(main)


def test_a_body_that_does_not_fit_is_refused_with_its_path(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(typed)
        for body in (b"", b"[", b"[" * 200_000, b"\xff", b'{"number": "seven"}', b"{}", b"7"):
            assert await served.code(path, body) == (422, "payload_invalid"), body[:9]
        response = await served.post(path, b'{"number": "seven"}')
        assert "number" in json.loads(response.body)["detail"]
        assert (await served.app.kinds(run_id)).count(EventType.HOOK_RECEIVED) == 0
        assert (await served.post(path, b'{"number": 7}')).status == 202
        assert await served.app.result(run_id) == 7

    play(main)


def test_a_webhook_is_not_resumed_by_a_value(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(collect, 1)
        with pytest.raises(ProblemError, match="to its URL") as refused:
            await served.hooks.resume_json(APP, path.rpartition("/")[2], "text", "r")
        assert refused.value.problem_code == "payload_invalid"
        assert (await served.app.kinds(run_id)).count(EventType.HOOK_RECEIVED) == 0

    play(main)


def test_nothing_is_taken_in_while_the_keys_are_frozen(play: PlayServed) -> None:
    async def main(served: Served) -> None:
        _, path = await served.opened(typed)
        await served.save(keys_frozen=True)
        assert await served.code(path, b'{"number": 7}') == (503, "keys_frozen")
        await served.save()
        assert (await served.post(path, b'{"number": 7}')).status == 202

    play(main)


def test_an_answer_leaves_one_line_in_the_audit_log(
    play: PlayServed, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(served: Served) -> None:
        run_id, path = await served.opened(serve, 1)
        with caplog.at_level(logging.INFO, "fluvial_gateway.audit"):
            assert (await served.post(path, b"secret")).body == b"secret!"
        [line] = [r for r in caplog.records if r.name == "fluvial_gateway.audit"]
        assert (line.message, line.__dict__["run_id"]) == ("webhook answered", run_id)
        assert "secret" not in str(line.__dict__)

    play(main)
