"""A language model without a language model: a few rules that read a conversation.

It is honest about what it is, gives the same answer to the same conversation, and needs neither a
network nor weights. What large models do, it does on a small scale: it decides on tools, calls
several at once, waits for their results, and says the answer word by word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from briefing import MEMORY, SUMMARISE
from conversation import Message, ToolCall
from tools import Tool

PAUSE_SECONDS: Final = 0.04  # between two words, so that one can watch
MAX_REMEMBERED: Final = 12  # questions
HELP: Final = (
    "I am a very small model. I look things up in the office's notes (travel, budget, office hours,"
    " equipment), calculate, and send mail once somebody has approved it."
)

_ADDRESS: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_EXPRESSION: Final = re.compile(r"[(\d][-+*/\d.() ]*[-+*/][-+*/\d.() ]*[\d)]")
_RECALL: Final = re.compile(r"\b(?:earlier|before|remember|so far)\b")
_NO_TOPIC: Final = re.compile(
    "about|after|answer|calculate|could|does|from|hello|have|here|into|mail|many|much|please|result|"
    "send|tell|thanks?|that|them|then|there|this|what|when|where|which|will|with|would|your"
)


class LocalModel:
    """A `Model` in this process."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        say: Callable[[str], Awaitable[None]],
    ) -> Message:
        """Return the next message, saying its text word by word."""
        reply = decide(messages, {tool.name for tool in tools})
        for word in re.findall(r"\S+\s*", reply.text):
            await say(word)
            await asyncio.sleep(self._pause_seconds)
        return reply


@dataclass(slots=True)
class _Reading:
    """What the last question wants, and what came of it so far."""

    question: str = ""
    results: dict[str, str] = field(default_factory=dict[str, str])  # by tool
    calls: int = 0  # in the whole conversation

    @classmethod
    def of(cls, messages: Sequence[Message]) -> _Reading:
        reading, tools = cls(), dict[str, str]()
        for message in messages:
            tools |= {call.id: call.tool for call in message.calls}
            if message.role == "user":
                reading.question, reading.results = message.text, {}
            elif message.role == "tool":
                reading.results[tools[message.call_id]] = message.text
        reading.calls = len(tools)
        return reading

    @property
    def address(self) -> str:
        found = _ADDRESS.search(self.question)
        return found[0] if found else ""

    @property
    def expression(self) -> str:
        found = _EXPRESSION.search(self.question)
        return found[0].strip() if found else ""

    @property
    def topic(self) -> str:
        words = re.findall(r"[a-z]{4,}", _ADDRESS.sub("", self.question.lower()))
        return " ".join(word for word in words if not _NO_TOPIC.fullmatch(word))


def decide(messages: Sequence[Message], tools: set[str]) -> Message:
    """Return the next message of a conversation: calls of the named tools, or an answer."""
    reading = _Reading.of(messages)
    if reading.question == SUMMARISE:
        return _assistant(_remembered(messages[:-1]))
    if _RECALL.search(reading.question.lower()):
        return _assistant(f"You have asked me: {_remembered(messages[:-1])}")
    calls = [
        ToolCall(id=f"call-{reading.calls + number}", tool=tool, arguments=arguments)
        for number, (tool, arguments) in enumerate(_wishes(reading), 1)
        if tool in tools
    ]
    if calls:
        return _assistant("" if reading.results else "Let me see.", *calls)
    return _assistant(" ".join([*_findings(reading), *_mailing(reading)]) or HELP)


def _wishes(reading: _Reading) -> list[tuple[str, dict[str, str]]]:
    """Return which tools to use next: first what finds something out, then what tells others."""
    if not reading.results:
        first: list[tuple[str, dict[str, str]]] = []
        if reading.expression:
            first.append(("calculate", {"expression": reading.expression}))
        if reading.topic:
            first.append(("search_notes", {"query": reading.topic}))
        if first:
            return first
    if not reading.address or "send_mail" in reading.results:
        return []
    subject = reading.topic or reading.expression or "Hello"
    body = " ".join(_findings(reading)) or reading.question
    return [("send_mail", {"to": reading.address, "subject": subject, "body": body})]


def _findings(reading: _Reading) -> list[str]:
    """Return what the tools have found out, in sentences."""
    found: list[str] = []
    for tool, result in reading.results.items():
        if result.startswith("error: "):
            found.append(f"That went wrong: {result.removeprefix('error: ')}.")
        elif tool == "calculate":
            found.append(f"{reading.expression} = {result}.")
        elif tool == "search_notes":
            nothing = result == "nothing found"
            found.append(f"The notes say nothing about {reading.topic}." if nothing else result)
    return found


def _mailing(reading: _Reading) -> list[str]:
    result = reading.results.get("send_mail", "")
    if result.startswith("sent"):
        return [f"I have sent that to {reading.address}."]
    return [f"I have not sent the mail: {result}."] if result else []


def _remembered(messages: Sequence[Message]) -> str:
    """Return what was asked so far, also before this conversation was cut short."""
    earlier = messages[0].text.partition(MEMORY)[2]
    asked = [earlier.rstrip(".")] if earlier else []
    asked += [message.text for message in messages if message.role == "user"]
    return "; ".join(asked[-MAX_REMEMBERED:]) or "nothing yet"


def _assistant(text: str, *calls: ToolCall) -> Message:
    return Message(role="assistant", text=text, calls=calls)
