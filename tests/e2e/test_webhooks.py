"""Webhooks on a real platform: what runs wait for comes by HTTP, as from any sender."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from standardwebhooks import Webhook as Signer

from tests.e2e.histories import of_type, read_events, start_run, wait_for_events, wait_for_result
from tests.e2e.installation import App, Platform

BUNDLE: Final = """
from dataclasses import dataclass

import fluvial
from fluvial import Webhook, step, workflow

@dataclass
class Payment:
    receipt: str

@step
async def shout(text: str) -> str:
    return text.upper()

@step
async def hand_out(url: str) -> None:
    pass

@workflow
async def converse() -> list[str]:
    seen = []
    async with Webhook(respond=True) as hook:
        fluvial.publish(hook.url)
        await hand_out(hook.url)
        async for request in hook:
            seen.append(request.text)
            answer = {"said": await shout(request.text), "path": request.path}
            await request.respond(answer, status=201, headers={"x-method": request.method})
            if request.text == "end":
                return seen

@workflow
async def signed(secrets: list[str]) -> list[str]:
    async with Webhook(secret=secrets) as hook:
        fluvial.publish(hook.url)
        await hand_out(hook.url)
        return [(await hook).text, (await hook).text]

@workflow
async def pay() -> str:
    async with Webhook(Payment) as hook:
        fluvial.publish(hook.url)
        await hand_out(hook.url)
        return (await hook).receipt

async def app(request):
    run = await fluvial.get_run(request.query["run"])
    return {"url": await run.state(), "app_url": fluvial.context().app_url}
"""
OPEN: Final = 5  # events of these runs until the webhook's URL is handed out
SECRET: Final = "whsec_" + base64.b64encode(bytes(range(24))).decode()
OTHER: Final = "whsec_" + base64.b64encode(bytes(range(1, 25))).decode()


class Sender:
    """Somebody outside, who was given the URL of a run's webhook."""

    def __init__(
        self,
        platform: Platform,
        app: App,
        client: httpx.Client,
        workflow: str,
        *arguments: object,
    ) -> None:
        self.run_id = start_run(platform, app.name, workflow, *arguments)
        wait_for_events(platform, self.run_id, OPEN)
        self.client = client
        told = self.client.get("/", params={"run": self.run_id}).raise_for_status().json()
        url = str(told["url"])
        parts = urlsplit(url)
        assert url.startswith(told["app_url"] + "/.well-known/fluvial/hooks/hook_")
        assert parts.netloc == app.host
        self.path = parts.path

    def send(
        self, body: bytes | str = b"", *, method: str = "POST", more: str = "", **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        content = body.encode() if isinstance(body, str) else body
        return self.client.request(method, self.path + more, content=content, headers=named)


@pytest.fixture(scope="module")
def app(running: Platform, tmp_path_factory: pytest.TempPathFactory) -> App:
    folder: Path = tmp_path_factory.mktemp("webhooks")
    (folder / "main.py").write_text(BUNDLE)
    (folder / "fluvial.toml").write_text('name = "webhooks"\n')
    return running.deploy(folder)


SenderTo = Callable[..., Sender]


@pytest.fixture
def sender_to(running: Platform, app: App) -> Iterator[SenderTo]:
    """Starts a run and returns a sender that knows its webhook."""
    with app.client() as client:

        def sender(workflow: str, *arguments: object) -> Sender:
            return Sender(running, app, client, workflow, *arguments)

        yield sender


def signed(secret: str, message: str, body: str, age: timedelta = timedelta()) -> dict[str, str]:
    at = datetime.now(UTC) - age
    return {
        "webhook_id": message,
        "webhook_timestamp": str(int(at.timestamp())),
        "webhook_signature": Signer(secret).sign(message, at, body),
    }


def result(platform: Platform, run_id: str) -> Any:
    return wait_for_result(platform, run_id)["result"]


def test_a_sender_gets_the_workflows_answer_also_from_a_new_instance(
    running: Platform, app: App, sender_to: SenderTo
) -> None:
    sender = sender_to("converse")
    first = sender.send("one", method="PUT", more="/a/b?c=d")
    assert (first.status_code, first.json()) == (201, {"said": "ONE", "path": "/a/b"})
    assert first.headers["x-method"] == "PUT"

    assert running.kill_instances(app)  # the workflow's coroutine with them: it is replayed
    second = sender.send("two", webhook_id="msg_2")
    again = sender.send("two", webhook_id="msg_2")
    assert (second.status_code, second.json()) == (201, {"said": "TWO", "path": ""})
    assert again.json() == second.json()

    assert sender.send("end").status_code == 201
    assert result(running, sender.run_id) == ["one", "two", "end"]
    assert sender.send("late").status_code == 404


def test_only_what_is_signed_gets_to_the_run(running: Platform, sender_to: SenderTo) -> None:
    sender = sender_to("signed", [OTHER, SECRET])
    right = signed(SECRET, "msg_1", "one")
    length = len(read_events(running, sender.run_id))
    for body, headers in [
        ("one", {}),
        ("two", right),
        ("one", {**right, "webhook_id": "msg_2"}),
        ("one", {**right, "webhook_signature": "v1,"}),
        ("one", signed("whsec_" + "A" * 32, "msg_1", "one")),
        ("one", signed(SECRET, "msg_1", "one", timedelta(minutes=6))),
        ("one", signed(SECRET, "msg_1", "one", timedelta(minutes=-6))),
    ]:
        refused = sender.send(body, **headers)
        assert (refused.status_code, refused.json()["code"]) == (401, "webhook_signature")
    assert len(read_events(running, sender.run_id)) == length

    assert sender.send("one", **right).status_code == 202
    assert sender.send("one", **right).status_code == 202  # sent again: the same request
    assert sender.send("two", **signed(OTHER, "msg_2", "two")).status_code == 202
    assert result(running, sender.run_id) == ["one", "two"]
    assert len(of_type(read_events(running, sender.run_id), "hook_received")) == 2
    token = sender.path.rpartition("/")[2]
    for text in (SECRET, OTHER, token):
        assert text not in running.logs()


def test_hostile_requests_are_refused_and_harm_nobody(
    running: Platform, sender_to: SenderTo
) -> None:
    sender = sender_to("pay")
    token = sender.path.rpartition("/")[2]
    other = "a" if token[-1] != "a" else "b"
    for path in (
        sender.path[:-1] + other,
        sender.path + other,
        sender.path.replace(token, f"hook_{'0' * 26}_{'a' * 24}"),
        sender.path.replace(token, f"hook_{'z' * 26}_{'a' * 24}"),
        sender.path.replace(token, "n.move"),
        sender.path.replace(token, "%2e%2e"),
        "/.well-known/fluvial/",
    ):
        answer = sender.client.post(path, content=b'{"receipt": "stolen"}')
        assert answer.status_code == 404, path
    for body, status in (
        (b"", 422),
        (b"[" * 100_000, 422),
        (b'{"receipt": 7}', 422),
        (b'{"receipt": "' + b"x" * 1024 * 1024 + b'"}', 413),
        (bytes(range(256)), 422),
    ):
        assert sender.send(body).status_code == status, body[:20]
    assert not of_type(read_events(running, sender.run_id), "hook_received")

    assert sender.send(b'{"receipt": "r-1"}').status_code == 202
    assert result(running, sender.run_id) == "r-1"
