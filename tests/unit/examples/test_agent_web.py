"""The agent's routes: what browsers send, and what they see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from fluvial.testing import Environment
from fluvial_queue.kit import open_engine

Load = Callable[[str], ModuleType]

OFFICE = "The office is open from 7:30 to 19:00 on weekdays, and closed on weekends."


class Browser:
    """A client of the app, and the platform below it."""

    def __init__(self, client: httpx.AsyncClient, env: Environment) -> None:
        self.client = client
        self.env = env

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def events(self, path: str, last: str = "") -> list[tuple[str, str, Any]]:
        """Return (kind, id, data) of all events up to the end of the response."""
        response = await self.client.get(path, headers={"last-event-id": last})
        assert response.headers["content-type"].startswith("text/event-stream")
        blocks = [
            dict(line.split(": ", 1) for line in block.splitlines())
            for block in response.text.strip().split("\n\n")
        ]
        return [
            (block["event"], block.get("id", ""), json.loads(block["data"])) for block in blocks
        ]


@pytest.fixture
def browse(
    load_bundle: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Callable[[Browser], Awaitable[None]]], None]:
    """Return a function that plays a scene in a browser."""
    monkeypatch.delenv("AGENT_MODEL", raising=False)
    monkeypatch.setenv("AGENT_PAUSE", "0")
    monkeypatch.setenv("AGENT_OUTBOX", str(tmp_path))
    agent = load_bundle("agent")
    monkeypatch.setattr(agent, "MAX_MESSAGES", 9)  # two questions with one tool each

    @asynccontextmanager
    async def browser() -> AsyncGenerator[Browser]:
        transport = httpx.ASGITransport(agent.app)
        async with (
            Environment(engine=open_engine) as env,
            httpx.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            yield Browser(client, env)

    def play(scene: Callable[[Browser], Awaitable[None]]) -> None:
        async def playing() -> None:
            async with browser() as opened:
                await scene(opened)

        asyncio.run(playing())

    return play


Browse = Callable[[Callable[[Browser], Awaitable[None]]], None]


def test_page_is_self_contained(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        page = await browser.client.get("/")

        assert page.headers["content-type"].startswith("text/html")
        assert "http://" not in page.text
        assert "https://" not in page.text

    browse(scene)


def test_what_was_said_is_told_with_its_places(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        begun = await browser.post("/conversations", text="When is the office open?", id="talk")
        assert begun.json() == {"conversation": "talk"}

        events = await browser.events("/conversations/talk/said")

        kinds = [kind for kind, _, _ in events]
        assert kinds == [
            "message",
            *["token"] * 3,
            *["message"] * 2,
            *["token"] * 14,
            "message",
            "end",
        ]
        assert events[0][2]["message"]["role"] == "user"
        assert "".join(data["text"] for kind, _, data in events[6:] if kind == "token") == OFFICE
        assert len({data["step"] for _, _, data in events[:5]}) == 1  # all of one execution
        again = await browser.events("/conversations/talk/said", last=events[9][1])
        assert again == events[10:]

    browse(scene)


def test_what_is_sent_twice_is_said_once(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        for _ in range(2):
            assert (await browser.post("/conversations", text="Hi", id="talk")).is_success
        other = await browser.post("/conversations", text="Hello", id="talk")
        assert other.status_code == httpx.codes.CONFLICT
        await browser.env.settle()
        for _ in range(2):
            assert (
                await browser.post("/conversations/talk/messages", text="Hey", id="2")
            ).is_success

        events = await browser.events("/conversations/talk/said")

        messages = [data["message"] for kind, _, data in events if kind == "message"]
        assert [m["text"] for m in messages if m["role"] == "user"] == ["Hi", "Hey"]

    browse(scene)


def test_a_conversation_is_followed_through_all_its_parts(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        await browser.post("/conversations", text="When is the office open?", id="talk")
        for question in ("And what may a trip cost?", "What did I ask earlier?"):
            await browser.env.settle()
            await browser.post("/conversations/talk/messages", text=question)

        events = await browser.events("/conversations/talk/said")
        states = await browser.events("/conversations/talk/states")

        assert len(await browser.env.runs()) == 2
        assert events[-2][2]["message"]["text"] == (
            "You have asked me: When is the office open?; And what may a trip cost?"
        )
        assert len({data["step"] for kind, _, data in events if kind == "message"}) == 5
        assert "remembering" in [data["doing"] for _, _, data in states[:-1]]
        assert states[-1] == ("end", "", {"status": "completed"})

    browse(scene)


def test_an_approval_is_given_once(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        await browser.post("/conversations", text="Mail the hours to a@example.com", id="talk")
        await browser.env.settle()
        (run,) = await browser.env.runs()
        (ask,) = (await run.state()).asks

        first = await browser.post(f"/approvals/{ask.token}", approved=True)
        await browser.env.settle()
        second = await browser.post(f"/approvals/{ask.token}", approved=False)

        assert (first.status_code, second.status_code) == (202, 409)
        states = await browser.events("/conversations/talk/states")
        asked = [data["asks"][0]["call"]["tool"] for _, _, data in states[:-1] if data["asks"]]
        assert asked == ["send_mail"]

    browse(scene)


def test_a_cancelled_conversation_hears_nothing_more(browse: Browse) -> None:
    async def scene(browser: Browser) -> None:
        await browser.post("/conversations", text="Hi", id="talk")
        assert (await browser.post("/conversations/talk/cancellation")).is_success
        states = await browser.events("/conversations/talk/states")

        late = await browser.post("/conversations/talk/messages", text="Still there?")

        assert states[-1] == ("end", "", {"status": "cancelled"})
        assert late.status_code == httpx.codes.CONFLICT

    browse(scene)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/conversations", {"text": ""}, 422),
        ("POST", "/conversations", {"text": "x" * 4001}, 422),
        ("POST", "/conversations/none/messages", {"text": "Hi"}, 404),
        ("POST", "/conversations/none/cancellation", {}, 404),
        ("GET", "/conversations/none/said", None, 404),
        ("GET", "/conversations/none/states", None, 404),
        ("POST", "/approvals/none", {"approved": True}, 409),
        ("POST", "/approvals/none", {"approved": "perhaps"}, 422),
    ],
)
def test_what_cannot_be_is_refused(
    browse: Browse, method: str, path: str, body: Any, status: int
) -> None:
    async def scene(browser: Browser) -> None:
        assert (await browser.client.request(method, path, json=body)).status_code == status

    browse(scene)
