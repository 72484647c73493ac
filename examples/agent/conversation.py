"""What a conversation is made of: for the workflow, its steps, the model and the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal

Doing = Literal["listening", "thinking", "acting", "remembering", "gone"]

INBOX: Final = "inbox"  # the hook that takes a `Question`
TOKENS: Final = "tokens"  # the stream: a `Message` that was heard or finished, and text meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """What a model wants done."""

    id: str
    tool: str
    arguments: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One contribution to a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    calls: tuple[ToolCall, ...] = ()  # of an assistant: it goes on when all have their results
    call_id: str = ""  # of a tool: the call whose result this is


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What somebody says to the agent."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's answer to an `Ask`."""

    approved: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A call that waits for a person."""

    token: str  # of the hook that takes the `Decision`
    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a conversation stands."""

    doing: Doing
    asks: tuple[Ask, ...] = ()


def unanswered(messages: Sequence[Message]) -> list[Message]:
    """Return what came after the assistant's last message."""
    is_new = takewhile(lambda message: message.role in ("user", "tool"), reversed(messages))
    return list(is_new)[::-1]
