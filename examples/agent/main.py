"""An agent: it talks, uses tools, asks before it acts, and goes on wherever it was killed.

Every call of the model and of a tool is a step: what was said and done is in the event log before
anything follows from it. Between two messages, and while a person decides, no process exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import fluvial
from briefing import BRIEFING, MEMORY, SUMMARISE
from conversation import (
    INBOX,
    TOKENS,
    Ask,
    Decision,
    Doing,
    Message,
    Question,
    State,
    ToolCall,
    unanswered,
)
from fluvial import Hook, continue_as_new, publish, step, workflow
from fluvial.errors import StepFailedError
from model import choose_model, unheard
from tools import TOOLS
from web import make_app

MAX_TURNS: Final = 8  # calls of the model for one question
MAX_MESSAGES: Final = 60  # then the conversation goes on as a new run, with a summary
SILENCE_SECONDS: Final = 86_400.0  # after which nobody is there any more
PATIENCE_SECONDS: Final = 3_600.0  # for one approval


@step(retries=5, timeout="5m")
async def think(messages: list[Message], may_use_tools: bool = True) -> Message:
    """Have the model answer. What it hears and says is in the stream while it says it."""
    out = fluvial.stream(TOKENS)
    for message in unanswered(messages):
        await out.write(message)
    tools = list(TOOLS.values()) if may_use_tools else []
    reply = await choose_model().reply(messages, tools, out.write)
    await out.write(reply)
    return reply


@step(retries=5, timeout="5m", exhausted="pause")
async def summarise(messages: list[Message]) -> str:
    """Return what is worth remembering."""
    request = Message(role="user", text=SUMMARISE)
    return (await choose_model().reply([*messages, request], [], unheard)).text


@step
async def say(text: str) -> Message:
    """Say something without the model."""
    message = Message(role="assistant", text=text)
    await fluvial.stream(TOKENS).write(message)
    return message


@workflow
async def converse(questions: Sequence[str] = (), memory: str = "") -> list[Message]:
    """Talk with somebody until they are silent for a day; return what was said.

    `questions` were asked before this run began. `memory` is what an earlier one knew.
    """
    agent = Agent(memory)
    try:
        async with Hook(Question, name=INBOX) as inbox:
            waiting = list(questions)
            while len(agent.messages) < MAX_MESSAGES:
                await agent.answer(waiting.pop(0) if waiting else await agent.listen(inbox))
            memory = await agent.remember()
            waiting += await _arrived(inbox)
            continue_as_new(waiting, memory)
    except TimeoutError:
        agent.show("gone")
        return agent.messages
    except asyncio.CancelledError:
        await say("We stop here. Goodbye!")  # durable: the run ends after it
        agent.show("gone")
        raise


class Agent:
    """One side of a conversation. It lives in the workflow, and nowhere else."""

    def __init__(self, memory: str) -> None:
        briefing = f"{BRIEFING} {MEMORY}{memory}" if memory else BRIEFING
        self.messages = [Message(role="system", text=briefing)]
        self._asks: list[Ask] = []

    async def listen(self, inbox: Hook[Question]) -> str:
        """Wait for the next question.

        Raises:
            TimeoutError: there is none.
        """
        self.show("listening")
        async with asyncio.timeout(SILENCE_SECONDS):
            return (await inbox).text

    async def answer(self, question: str) -> None:
        """Answer one question: think, use tools, think again, until there is nothing left to do."""
        self.messages.append(Message(role="user", text=question))
        for turn in range(1, MAX_TURNS + 1):
            self.show("thinking")
            try:
                reply = await think(self.messages, turn < MAX_TURNS)
            except StepFailedError as error:
                reply = await say(f"My model does not answer ({error.reason}). Ask me again later.")
            self.messages.append(reply)
            if not reply.calls:
                return
            self.show("acting")
            self.messages += await asyncio.gather(*map(self.use, reply.calls))

    async def use(self, call: ToolCall) -> Message:
        """Do what the model wants; what goes wrong is a result, too."""
        tool = TOOLS.get(call.tool)
        if tool is None or set(call.arguments) != set(tool.parameters):
            result = f"error: there is no tool {call.tool}({', '.join(call.arguments)})"
        elif tool.needs_approval and not await self.ask(call):
            result = "not done: nobody approved it"
        else:
            try:
                result = await tool.run(**call.arguments)
            except StepFailedError as error:
                result = f"error: {error.__cause__ or error.reason}"
        return Message(role="tool", text=result, call_id=call.id)

    async def ask(self, call: ToolCall) -> bool:
        """Wait for a person to approve a call; nothing runs meanwhile."""
        async with Hook(Decision, timeout=PATIENCE_SECONDS) as hook:
            ask = Ask(token=hook.token, call=call)
            self._asks.append(ask)
            self.show("acting")
            try:
                return (await hook).approved
            except TimeoutError:
                return False
            finally:
                self._asks.remove(ask)
                self.show("acting")

    async def remember(self) -> str:
        """Return what is worth remembering of all this."""
        self.show("remembering")
        return await summarise(self.messages)

    def show(self, doing: Doing) -> None:
        """Let everybody who looks know where this conversation stands."""
        publish(State(doing=doing, asks=tuple(self._asks)))


async def _arrived(inbox: Hook[Question]) -> list[str]:
    """Return what has arrived meanwhile, so that nothing of it stays behind."""
    questions: list[str] = []
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            while True:
                questions.append((await inbox).text)
    return questions


app = make_app(converse)
