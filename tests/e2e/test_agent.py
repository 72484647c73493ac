"""The agent on the platform: its words arrive while it speaks, and outlive who speaks them."""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.chat_server import Answer, ChatServer, chat_server
from tests.e2e.installation import App, Platform, wait_until

AGENT: Final = Path(__file__).parents[2] / "examples" / "agent"
OUTBOX: Final = Path("/tmp/fluvial-agent-outbox")  # an instance has no TMPDIR
SETTLE_SECONDS: Final = 30.0
OFFICE: Final = "The office is open from 7:30 to 19:00 on weekdays, and closed on weekends."
GOODBYE: Final = "We stop here. Goodbye!"
MAX_MESSAGES: Final = 5  # of the agent with the server: two questions and their answers
WORDS: Final = ("To ", "be ", "honest, ", "I ", "am ", "a ", "test.")


@dataclass(slots=True)
class View:
    """What a page shows of a conversation: read from its events, and again where they break off."""

    said: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    growing: dict[str, str] = field(default_factory=dict[str, str])
    resets: int = 0
    last: str = ""

    def take(self, kind: str, data: dict[str, Any]) -> None:
        """Show one event."""
        step = data.get("step", "")
        if kind == "token":
            self.growing[step] = self.growing.get(step, "") + data["text"]
        elif kind == "message":
            self.said.setdefault(step, []).append(data["message"])
            if data["message"]["role"] == "assistant":
                text = data["message"]["text"]  # nothing grows where it is said at once
                assert self.growing.pop(step, text) == text
        elif kind == "reset":
            self.resets += 1
            self.said.pop(step, None)
            self.growing.pop(step, None)

    def texts(self, role: str) -> list[str]:
        """Return what one side has said, as far as it is complete."""
        messages = [message for said in self.said.values() for message in said]
        return [message["text"] for message in messages if message["role"] == role]


class Talk:
    """One conversation, seen from outside."""

    def __init__(self, app: App, first: str) -> None:
        self.id = uuid.uuid4().hex
        self.view = View()
        self._app = app
        self.post("/conversations", text=first, id=self.id)

    def post(self, path: str, **body: Any) -> None:
        with self._app.client() as client:
            client.post(path, json=body).raise_for_status()

    def tell(self, text: str) -> None:
        """Say something more."""
        self.post(f"/conversations/{self.id}/messages", text=text)

    def cancel(self) -> None:
        self.post(f"/conversations/{self.id}/cancellation")

    def watch(self, until: Callable[[View], bool]) -> View:
        """Read what is said until a condition holds; whoever serves it may die meanwhile."""

        def look() -> bool:
            try:
                for kind, number, data in self._events("said", self.view.last):
                    self.view.take(kind, data)
                    self.view.last = number or self.view.last
                    if until(self.view):
                        return True
            except httpx.HTTPError:
                pass
            return until(self.view)

        wait_until(look, SETTLE_SECONDS, "it was said")
        return self.view

    def asked(self) -> str:
        """Wait until it asks for an approval, and return the approval's token."""
        for kind, _, data in self._events("states"):
            if kind == "state" and data["asks"]:
                return str(data["asks"][0]["token"])
        raise AssertionError("it has asked for nothing")

    def ending(self) -> str:
        """Return the status with which the conversation has ended."""
        *_, (_, _, data) = self._events("states")
        return str(data["status"])

    def _events(self, what: str, last: str = "") -> Iterator[tuple[str, str, dict[str, Any]]]:
        path, headers = f"/conversations/{self.id}/{what}", {"last-event-id": last}
        with self._app.client() as client, client.stream("GET", path, headers=headers) as response:
            response.raise_for_status()
            fields: dict[str, str] = {}
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif fields:
                    yield fields["event"], fields.get("id", ""), json.loads(fields["data"])
                    fields = {}


@pytest.fixture(scope="module")
def small(running: Platform) -> App:
    """The example as it is, with its small model."""
    return running.deploy(AGENT)


@pytest.fixture(scope="module")
def model() -> Iterator[ChatServer]:
    """A server for the agent's model, in the hands of the tests."""
    with chat_server(Answer(words=WORDS)) as server:
        yield server


@pytest.fixture(scope="module")
def large(running: Platform, model: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> App:
    """The example, speaking to that server."""
    folder = tmp_path_factory.mktemp("agent") / "agent"
    shutil.copytree(AGENT, folder)
    settings = {"AGENT_MODEL": "test", "OPENAI_BASE_URL": model.url}
    (folder / "configured.py").write_text(
        f"import os\nos.environ.update({settings!r})\n"
        f"import main\nmain.MAX_MESSAGES = {MAX_MESSAGES}\napp = main.app\n"
    )
    manifest = folder / "pyproject.toml"
    manifest.write_text(manifest.read_text().replace("main:app", "configured:app"))
    return running.deploy(folder, "--name", "agent-large")


def mails_to(address: str) -> int:
    found = [json.loads(path.read_text()) for path in OUTBOX.glob("*.json")]
    return sum(mail["to"] == address for mail in found)


def test_a_conversation_with_tools_and_an_approval(small: App) -> None:
    address = f"{uuid.uuid4().hex}@example.com"
    talk = Talk(small, f"When is the office open? Mail it to {address}")
    token = talk.asked()
    assert mails_to(address) == 0

    talk.post(f"/approvals/{token}", approved=True)

    view = talk.watch(lambda view: len(view.texts("assistant")) == 3)
    assert view.texts("assistant")[-1] == f"{OFFICE} I have sent that to {address}."
    assert mails_to(address) == 1
    talk.tell("What did I ask earlier?")
    view = talk.watch(lambda view: len(view.texts("assistant")) == 4)
    assert view.texts("user")[-1] == "What did I ask earlier?"
    talk.cancel()


def test_a_cancelled_conversation_says_goodbye(small: App) -> None:
    address = f"{uuid.uuid4().hex}@example.com"
    talk = Talk(small, f"When is the office open? Mail it to {address}")
    talk.asked()

    talk.cancel()

    assert talk.ending() == "cancelled"
    view = talk.watch(lambda view: len(view.texts("assistant")) == 3)
    assert view.texts("assistant")[-1] == GOODBYE
    assert mails_to(address) == 0


def test_words_arrive_while_the_model_still_speaks(large: App, model: ChatServer) -> None:
    rest = threading.Event()
    model.play(Answer(words=WORDS, hold=rest))
    talk = Talk(large, "Hello")

    view = talk.watch(lambda view: "".join(WORDS) in view.growing.values())
    assert view.texts("assistant") == []

    rest.set()
    talk.watch(lambda view: view.texts("assistant") == ["".join(WORDS)])
    assert len(model.requests) == 1
    talk.cancel()


def test_an_answer_survives_the_death_of_who_speaks_it(
    running: Platform, large: App, model: ChatServer
) -> None:
    never = threading.Event()
    model.play(Answer(words=WORDS[:3], hold=never), Answer(words=WORDS))
    talk = Talk(large, "Hello")
    talk.watch(lambda view: "".join(WORDS[:3]) in view.growing.values())

    assert running.kill_instances(large)

    view = talk.watch(lambda view: view.texts("assistant") == ["".join(WORDS)])
    assert view.resets == 1
    assert view.texts("user") == ["Hello"]
    assert len(model.requests) == 2
    never.set()
    talk.cancel()


def test_a_cancel_stops_the_model_in_the_middle_of_its_answer(
    large: App, model: ChatServer
) -> None:
    never = threading.Event()
    model.play(Answer(words=WORDS[:3], hold=never))
    talk = Talk(large, "Hello")
    talk.watch(lambda view: "".join(WORDS[:3]) in view.growing.values())

    talk.cancel()

    assert talk.ending() == "cancelled"
    view = talk.watch(lambda view: view.texts("assistant") != [])
    assert view.texts("assistant") == [GOODBYE]
    never.set()


def test_a_long_conversation_is_followed_into_its_next_run(large: App, model: ChatServer) -> None:
    model.play(
        Answer(words=["One."]),
        Answer(words=["Two."]),
        Answer(words=["Much."]),
        Answer(words=["Three."]),
    )
    talk = Talk(large, "1?")
    talk.watch(lambda view: view.texts("assistant") == ["One."])
    talk.tell("2?")
    talk.watch(lambda view: view.texts("assistant") == ["One.", "Two."])
    talk.tell("3?")

    view = talk.watch(lambda view: len(view.texts("assistant")) == 3)

    assert view.texts("assistant")[-1] == "Three."
    assert view.texts("user") == ["1?", "2?", "3?"]
    briefing = model.requests[3]["messages"][0]["content"]
    assert briefing.endswith("What was said before, in short: Much.")
    talk.cancel()
    assert talk.ending() == "cancelled"
