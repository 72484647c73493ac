"""The agent's conversations: what is said, done and asked for, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fluvial.errors import RetryableError, RunCancelledError
from fluvial.testing import Environment, Mode, SyncEnvironment, enumerate_crashes
from fluvial.testing.synchronous import SyncRun
from fluvial_queue.kit import open_engine
from tests.chat_server import Answer, chat_server

Load = Callable[[str], ModuleType]

OFFICE = "The office is open from 7:30 to 19:00 on weekdays, and closed on weekends."
TRIP = "A business trip may cost up to 420 euros per person, hotel and train together."
LONG_QUESTION = "What may a trip cost, and what is 3 * 420? Mail it to team@example.com"
GOODBYE = "We stop here. Goodbye!"


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder into which the agent's mail goes."""
    monkeypatch.setenv("AGENT_OUTBOX", str(tmp_path / "outbox"))
    return tmp_path / "outbox"


@pytest.fixture
def agent(load_bundle: Load, outbox: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example's main module, with the small model in a hurry."""
    monkeypatch.delenv("AGENT_MODEL", raising=False)
    monkeypatch.setenv("AGENT_PAUSE", "0")
    return load_bundle("agent")


@pytest.fixture(params=["live", "replay", "evict"])
def env(request: pytest.FixtureRequest) -> Iterator[SyncEnvironment]:
    mode: Mode = request.param
    with SyncEnvironment(mode=mode, engine=open_engine) as environment:
        yield environment


def begin(env: SyncEnvironment, agent: Any, question: str) -> SyncRun[Any]:
    """Begin a conversation, and let everything happen that needs nobody."""
    run = env.start(agent.converse, [question])
    env.settle()
    return run


def tell(env: SyncEnvironment, agent: Any, run: SyncRun[Any], text: str) -> None:
    env.send(run, "inbox", agent.Question(text=text))
    env.settle()


def decide(env: SyncEnvironment, agent: Any, run: SyncRun[Any], *, approved: bool) -> None:
    (ask,) = run.state(agent.State).asks
    env.resume(ask.token, agent.Decision(approved=approved))
    env.settle()


def texts(messages: list[Any], role: str) -> list[str]:
    return [m.text for m in messages if getattr(m, "role", "") == role]


def mails(outbox: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(outbox.glob("*.json"))]


def empty(outbox: Path) -> None:
    for path in outbox.glob("*.json"):
        path.unlink()


def test_a_question_is_answered_with_tools_word_by_word(env: SyncEnvironment, agent: Any) -> None:
    run = begin(env, agent, "When is the office open?")

    said = run.written("tokens")
    assert texts(said, "assistant") == ["Let me see.", OFFICE]
    assert "".join(word for word in said if isinstance(word, str)) == f"Let me see.{OFFICE}"
    assert run.state(agent.State) == agent.State(doing="listening")


def test_the_stream_holds_what_the_run_returns(env: SyncEnvironment, agent: Any) -> None:
    run = begin(env, agent, "When is the office open?")
    tell(env, agent, run, "What is 2 + 2?")

    briefing, *messages = run.result()  # after a day of silence
    assert briefing.role == "system"
    assert [m for m in run.written("tokens") if not isinstance(m, str)] == messages
    assert run.state(agent.State).doing == "gone"


def test_calls_of_one_message_run_in_parallel(env: SyncEnvironment, agent: Any) -> None:
    env.mock(agent.TOOLS["calculate"].run, returns="1260", takes="10s")
    env.mock(agent.TOOLS["search_notes"].run, returns=TRIP, takes="10s")
    run = begin(env, agent, "What may a trip cost, and what is 3 * 420?")

    env.advance("11s")

    assert run.state(agent.State).doing == "listening"


def test_an_approved_mail_is_sent(env: SyncEnvironment, agent: Any, outbox: Path) -> None:
    run = begin(env, agent, LONG_QUESTION)
    assert mails(outbox) == []

    decide(env, agent, run, approved=True)

    body = f"3 * 420 = 1260. {TRIP}"
    assert mails(outbox) == [{"to": "team@example.com", "subject": "trip cost", "body": body}]
    assert texts(run.written("tokens"), "assistant")[-1].endswith(
        "I have sent that to team@example.com."
    )


def test_a_refused_mail_is_not_sent(env: SyncEnvironment, agent: Any, outbox: Path) -> None:
    run = begin(env, agent, "Mail the office hours to team@example.com")

    decide(env, agent, run, approved=False)

    assert mails(outbox) == []
    assert "I have not sent the mail" in texts(run.written("tokens"), "assistant")[-1]
    assert run.state(agent.State) == agent.State(doing="listening")


def test_nobody_decides_in_time(env: SyncEnvironment, agent: Any, outbox: Path) -> None:
    run = begin(env, agent, "Mail the office hours to team@example.com")
    (ask,) = run.state(agent.State).asks

    env.advance(agent.PATIENCE_SECONDS)

    assert mails(outbox) == []
    assert texts(run.written("tokens"), "tool")[-1] == "not done: nobody approved it"
    assert ask.token not in run.open_hooks


def test_a_cancelled_conversation_says_goodbye(
    env: SyncEnvironment, agent: Any, outbox: Path
) -> None:
    run = begin(env, agent, LONG_QUESTION)

    run.cancel()

    with pytest.raises(RunCancelledError):
        run.result()
    assert texts(run.written("tokens"), "assistant")[-1] == GOODBYE
    assert run.state(agent.State) == agent.State(doing="gone")
    assert mails(outbox) == []


def test_a_tool_that_fails_is_told_to_the_model(env: SyncEnvironment, agent: Any) -> None:
    run = begin(env, agent, "What is 1 / 0?")

    assert texts(run.written("tokens"), "tool") == ["error: cannot calculate '1 / 0'"]
    assert "went wrong" in texts(run.written("tokens"), "assistant")[-1]


@pytest.mark.parametrize(
    ("tool", "arguments"), [("no_such_tool", {}), ("calculate", {"formula": "1 + 1"})]
)
def test_a_call_of_what_does_not_exist_is_told_to_the_model(
    env: SyncEnvironment, agent: Any, tool: str, arguments: dict[str, str]
) -> None:
    call = agent.ToolCall(id="1", tool=tool, arguments=arguments)
    wrong = agent.Message(role="assistant", calls=(call,))
    env.mock(agent.think, each=[wrong, agent.Message(role="assistant", text="Sorry.")])
    run = begin(env, agent, "Hello")

    messages = env.calls(agent.think)[1].args[0]
    assert f"there is no tool {tool}" in messages[-1].text
    assert run.state(agent.State).doing == "listening"


def test_a_model_that_is_busy_is_asked_again(env: SyncEnvironment, agent: Any) -> None:
    reply = agent.Message(role="assistant", text="At last.")
    busy = RetryableError("429", retry_after="40s")
    env.mock(agent.think, each=[busy, busy, reply])
    run = begin(env, agent, "Hello")

    env.advance("79s")
    assert run.state(agent.State).doing == "thinking"
    env.advance("2s")
    assert run.state(agent.State).doing == "listening"
    assert len(env.calls(agent.think)) == 3


def test_a_model_that_refuses_ends_no_conversation(
    env: SyncEnvironment, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(Answer(status=401)) as server, monkeypatch.context() as settings:
        settings.setenv("AGENT_MODEL", "some-model")
        settings.setenv("OPENAI_BASE_URL", server.url)
        run = begin(env, agent, "Hello")

    tell(env, agent, run, "When is the office open?")

    said = run.written("tokens")
    assert texts(said, "user") == ["Hello", "When is the office open?"]
    assert texts(said, "assistant")[0].startswith("My model does not answer (FatalError: http")
    assert texts(said, "assistant")[-1] == OFFICE


def test_a_model_that_only_calls_tools_is_stopped(env: SyncEnvironment, agent: Any) -> None:
    def call_again(messages: list[Any], may_use_tools: bool) -> Any:
        call = agent.ToolCall(id="1", tool="calculate", arguments={"expression": "1"})
        calls = (call,) if may_use_tools else ()
        return agent.Message(role="assistant", calls=calls)

    env.mock(agent.think, does=call_again)
    run = begin(env, agent, "Hello")

    may_use_tools = [call.args[1] for call in env.calls(agent.think)]
    assert may_use_tools == [True] * (agent.MAX_TURNS - 1) + [False]
    assert run.state(agent.State).doing == "listening"


def test_a_long_conversation_goes_on_as_a_new_run_and_remembers(
    env: SyncEnvironment, agent: Any
) -> None:
    env.mock(agent.summarise, returns="When is the office open?", takes="20s")
    run = begin(env, agent, "When is the office open?")
    for _ in range(agent.MAX_MESSAGES // 4 - 1):
        tell(env, agent, run, "When is the office open?")
    env.until(run, step=agent.summarise)
    env.send(
        run, "inbox", agent.Question(text="What did I ask earlier?")
    )  # while it writes that down
    env.advance("1m")

    first, second = env.runs()
    assert first.status == "continued"
    assert texts(second.written("tokens"), "assistant") == [
        "You have asked me: When is the office open?"
    ]
    assert len(second.open_hooks) == 1


def test_it_ends_the_same_wherever_it_is_killed(agent: Any, outbox: Path) -> None:
    async def conversation(env: Environment) -> Any:
        empty(outbox)
        run = await env.start(agent.converse, [LONG_QUESTION])
        await env.settle()
        (ask,) = (await run.state(agent.State)).asks
        await env.resume(ask.token, agent.Decision(approved=True), resume_id="yes")
        await env.send(run, "inbox", agent.Question(text="Thank you"), resume_id="second")
        return await run.result(), await run.written("tokens"), mails(outbox)

    report = asyncio.run(enumerate_crashes(conversation, engine=open_engine))

    messages, said, sent = report.outcome
    assert texts(said, "assistant") == texts(messages, "assistant")
    assert len(sent) == 1


def test_it_says_goodbye_once_wherever_it_is_killed(agent: Any) -> None:
    async def cancelled(env: Environment) -> Any:
        run = await env.start(agent.converse, ["Mail the hours to team@example.com"])
        await env.settle()
        await run.cancel()
        with pytest.raises(RunCancelledError):
            await run.result()
        return await run.written("tokens")

    report = asyncio.run(enumerate_crashes(cancelled, engine=open_engine))

    assert texts(report.outcome, "assistant").count(GOODBYE) == 1


def test_it_goes_on_as_a_new_run_wherever_it_is_killed(
    agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "MAX_MESSAGES", 3)

    async def conversation(env: Environment) -> Any:
        run = await env.start(agent.converse, ["Hello"])
        await env.settle()
        await env.send(run, "inbox", agent.Question(text="Hello again"), resume_id="second")
        return await run.result(), [await part.written("tokens") for part in await env.runs()]

    report = asyncio.run(enumerate_crashes(conversation, engine=open_engine))

    _, said = report.outcome
    assert [texts(part, "user") for part in said] == [
        ["Hello"],
        ["Hello again"],
        [],
    ]
