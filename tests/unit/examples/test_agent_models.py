"""The agent's models: what the small one decides, and how the other speaks to a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import ModuleType
from typing import Any

import pytest

from fluvial.errors import FatalError, RetryableError
from tests.chat_server import Answer, chat_server

Load = Callable[[str], ModuleType]


class World:
    """The example's modules, and a conversation with a model."""

    def __init__(self, agent: Any) -> None:
        self.agent = agent
        self.heard: list[str] = []

    def user(self, text: str) -> Any:
        return self.agent.Message(role="user", text=text)

    def ask(self, *messages: Any, with_tools: bool = True) -> Any:
        """Ask the model that the environment names; keep what it says on the way."""

        async def hear(text: str) -> None:
            self.heard.append(text)

        system = self.agent.Message(role="system", text=self.agent.BRIEFING)
        tools = list(self.agent.TOOLS.values()) if with_tools else []
        return asyncio.run(self.agent.choose_model().reply([system, *messages], tools, hear))

    def result(self, call: Any, text: str) -> Any:
        return self.agent.Message(role="tool", text=text, call_id=call.id)


@pytest.fixture
def world(load_bundle: Load, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("AGENT_MODEL", raising=False)
    monkeypatch.setenv("AGENT_PAUSE", "0")
    return World(load_bundle("agent"))


@pytest.fixture
def speak_to(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that has the agent speak to a server."""

    def speak(url: str) -> None:
        monkeypatch.setenv("AGENT_MODEL", "some-model")
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")

    return speak


@pytest.mark.parametrize(
    ("question", "calls"),
    [
        ("When is the office open?", [("search_notes", {"query": "office open"})]),
        ("What is 3 * (420 - 35)?", [("calculate", {"expression": "3 * (420 - 35)"})]),
        (
            "Trip budget, and 2.5*4?",
            [
                ("calculate", {"expression": "2.5*4"}),
                ("search_notes", {"query": "trip budget"}),
            ],
        ),
        ("Hello!", []),
        ("What did I say before?", []),
    ],
)
def test_the_small_model_chooses_its_tools(
    world: World, question: str, calls: Sequence[tuple[str, dict[str, str]]]
) -> None:
    reply = world.ask(world.user(question))

    assert [(call.tool, call.arguments) for call in reply.calls] == list(calls)
    assert "".join(world.heard) == reply.text


def test_the_small_model_mails_what_it_has_found(world: World) -> None:
    question = world.user("Mail the office hours to a@example.com")
    first = world.ask(question)

    second = world.ask(question, first, world.result(first.calls[0], "From 7:30."))

    (call,) = second.calls
    assert call.tool == "send_mail"
    assert call.arguments["to"] == "a@example.com"
    assert call.arguments["body"] == "From 7:30."


def test_the_small_model_calls_nothing_that_it_may_not(world: World) -> None:
    assert world.ask(world.user("What is 1 + 1?"), with_tools=False).calls == ()


def test_the_small_model_remembers_what_was_asked(world: World) -> None:
    first = world.agent.Message(role="assistant", text="Yes.")

    reply = world.ask(world.user("One?"), first, world.user("Two?"), first, world.user("So far?"))

    assert reply.text == "You have asked me: One?; Two?"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("3 * (420 - 35)", "1155"), ("-2 + 0.5", "-1.5"), ("1 / 3", "0.333333"), ("0.1+0.2", "0.3")],
)
def test_calculate(world: World, expression: str, value: str) -> None:
    assert asyncio.run(_outcome(world.agent.TOOLS["calculate"].run, expression)) == value


@pytest.mark.parametrize(
    "expression", ["1 / 0", "2 ** 9", "exit()", "a", "True", "1e999", "(", "1" * 201, "'a' * 9"]
)
def test_what_is_no_arithmetic_is_refused(world: World, expression: str) -> None:
    with pytest.raises(FatalError):
        asyncio.run(_outcome(world.agent.TOOLS["calculate"].run, expression))


def test_a_server_streams_its_answer(world: World, speak_to: Callable[[str], None]) -> None:
    with chat_server(Answer(words=["Good", " day", "."])) as server:
        speak_to(server.url)
        reply = world.ask(world.user("Hello"))

    assert reply == world.agent.Message(role="assistant", text="Good day.")
    assert world.heard == ["Good", " day", "."]
    (request,) = server.requests
    assert (request["model"], request["stream"]) == ("some-model", True)
    assert request["messages"][1] == {"role": "user", "content": "Hello"}
    assert server.keys == ["Bearer sk-test"]


def test_a_server_calls_tools_and_gets_their_results(
    world: World, speak_to: Callable[[str], None]
) -> None:
    calls = [("c1", "calculate", '{"expression": "1+1"}'), ("c2", "search_notes", '{"query": "x"}')]
    with chat_server(Answer(calls=calls), Answer(words=["2"])) as server:
        speak_to(server.url)
        question = world.user("1+1?")
        first = world.ask(question)
        results = [world.result(call, "2") for call in first.calls]
        second = world.ask(question, first, *results)

    assert [call.arguments for call in first.calls] == [{"expression": "1+1"}, {"query": "x"}]
    assert second.text == "2"
    described = server.requests[0]["tools"][1]["function"]
    assert described["name"] == "calculate"
    assert described["parameters"]["required"] == ["expression"]
    sent = server.requests[1]["messages"]
    assert sent[2]["tool_calls"][0]["function"]["name"] == "calculate"
    assert sent[3] == {"role": "tool", "content": "2", "tool_call_id": "c1"}


def test_arguments_that_are_no_object_are_none(
    world: World, speak_to: Callable[[str], None]
) -> None:
    calls = [("c1", "calculate", "[1]"), ("c2", "calculate", "{broken"), ("c3", "calculate", "")]
    with chat_server(Answer(calls=calls)) as server:
        speak_to(server.url)
        reply = world.ask(world.user("Hello"))

    assert [call.arguments for call in reply.calls] == [{}, {}, {}]


def test_a_busy_server_says_when_to_come_back(
    world: World, speak_to: Callable[[str], None]
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=30)
    busy = [
        Answer(status=429, headers={"retry-after": "17"}),
        Answer(status=503, headers={"retry-after": format_datetime(at, usegmt=True)}),
        Answer(status=429),
    ]
    waits: list[float] = []
    with chat_server(*busy) as server:
        speak_to(server.url)
        for _ in busy:
            with pytest.raises(RetryableError, match="not now") as caught:
                world.ask(world.user("Hello"))
            waits.append(caught.value.retry_after_seconds)

    assert waits[0] == 17
    assert waits[1] > 20 * 60
    assert waits[2] == 5


def test_a_server_that_refuses_is_not_asked_again(
    world: World, speak_to: Callable[[str], None]
) -> None:
    with chat_server(Answer(status=401)) as server:
        speak_to(server.url)
        with pytest.raises(FatalError, match="401"):
            world.ask(world.user("Hello"))


@pytest.mark.parametrize("end", ["missing", "cut"])
def test_an_answer_that_breaks_off_is_asked_for_again(
    world: World, speak_to: Callable[[str], None], end: Any
) -> None:
    with chat_server(Answer(words=["Good"], end=end)) as server:
        speak_to(server.url)
        with pytest.raises(RetryableError, match="broke off"):
            world.ask(world.user("Hello"))

    assert world.heard == ["Good"]


async def _outcome(step: Any, *args: Any) -> Any:
    """Call a step as a plain function, be it sync or async."""
    made = step(*args)
    return await made if asyncio.iscoroutine(made) else made
