"""What the agent needs of a language model, and which one it gets."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from conversation import Message
from http_model import HttpModel
from local_model import PAUSE_SECONDS, LocalModel
from tools import Tool

Say = Callable[[str], Awaitable[None]]  # takes a piece of text as soon as there is one


class Model(Protocol):
    """Answers a conversation."""

    async def reply(self, messages: Sequence[Message], tools: Sequence[Tool], say: Say) -> Message:
        """Return the next message: an answer, or calls of `tools`. Its text is said piecemeal."""
        ...


def choose_model() -> Model:
    """Return the model that the environment names.

    OPENAI_BASE_URL (such as `http://127.0.0.1:11434/v1`) names a server that speaks the protocol of
    OpenAI's chat completions, AGENT_MODEL its model and OPENAI_API_KEY the key. Without AGENT_MODEL
    it is the small model of this example, which waits AGENT_PAUSE seconds between two words.
    """
    name = os.environ.get("AGENT_MODEL")
    if not name:
        return LocalModel(float(os.environ.get("AGENT_PAUSE") or PAUSE_SECONDS))
    url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return HttpModel(url, name, os.environ.get("OPENAI_API_KEY", ""))


async def unheard(text: str) -> None:
    """Take a piece of text that nobody is to see."""
