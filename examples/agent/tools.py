"""What the agent can do. Each tool is a step, with retries of its own."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from arithmetic import evaluate
from fluvial import FatalError, Step, metadata, step
from fluvial.errors import NotInWorkflowError
from outbox import deliver

NOTES: Final = Path(__file__).with_name("notes")
MIN_WORD: Final = 4  # characters of a word worth looking for


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A step as a model sees it."""

    name: str
    description: str
    parameters: dict[str, str]  # name: what it is; all are texts
    needs_approval: bool
    run: Callable[..., Awaitable[str]]

    @classmethod
    def of(cls, run: Step[..., str], *, needs_approval: bool = False, **parameters: str) -> Tool:
        """Return a step as a tool with the step's name and docstring."""
        return cls(
            name=run.name,
            description=run.function.__doc__ or "",
            parameters=parameters,
            needs_approval=needs_approval,
            run=run,
        )

    def schema(self) -> dict[str, Any]:
        """Return the parameters as a JSON Schema."""
        properties = {
            name: {"type": "string", "description": text} for name, text in self.parameters.items()
        }
        return {"type": "object", "properties": properties, "required": list(properties)}


@step(retries=2)
def search_notes(query: str) -> str:
    """Look something up in the office's notes."""
    words = _words(query)
    lines = [
        (len(words & (_words(line) | _words(note.stem))), line)
        for note in sorted(NOTES.glob("*.md"))
        for line in note.read_text(encoding="utf-8").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    best = max(count for count, _ in lines)
    return next(line for count, line in lines if count == best) if best else "nothing found"


@step(retries=0)
def calculate(expression: str) -> str:
    """Calculate with numbers, + - * / and parentheses."""
    try:
        return evaluate(expression)
    except ValueError as error:
        raise FatalError(str(error)) from error


@step(retries=5, timeout="30s")
def send_mail(to: str, subject: str, body: str) -> str:
    """Send a mail. Somebody is asked first."""
    deliver({"to": to, "subject": subject, "body": body}, key=_key())
    return f"sent to {to}"


TOOLS: Final = {
    tool.name: tool
    for tool in (
        Tool.of(search_notes, query="what to look for"),
        Tool.of(calculate, expression="for example 3 * (420 - 35)"),
        Tool.of(
            send_mail,
            needs_approval=True,
            to="an address",
            subject="a few words",
            body="the text",
        ),
    )
}


def _words(text: str) -> set[str]:
    """Return the words of a text as they are compared: long ones, without a plural's s."""
    found = re.findall(r"[a-z]+", text.lower())
    return {word.rstrip("s") for word in found if len(word) >= MIN_WORD}


def _key() -> str:
    try:
        return metadata().idempotency_key  # the same in every attempt: the mail goes out once
    except NotInWorkflowError:
        return uuid.uuid4().hex  # a plain call, from a test or a shell
