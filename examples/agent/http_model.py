"""Any model behind the protocol of OpenAI's chat completions: hosted, or a server of your own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, cast

import httpx

from conversation import Message, ToolCall
from fluvial import FatalError, RetryableError
from tools import Tool

SILENCE_SECONDS: Final = 60.0  # of the server, within an answer
RETRY_AFTER_SECONDS: Final = 5.0  # where a busy server does not say it
_BUSY: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


class HttpModel:
    """A `Model` at the other end of HTTP. What may pass is raised as a `RetryableError`."""

    def __init__(self, url: str, name: str, key: str = "") -> None:
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._name = name
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    async def reply(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        say: Callable[[str], Awaitable[None]],
    ) -> Message:
        """Return the next message, saying its text as it arrives.

        Raises:
            RetryableError: the server is busy, or its answer broke off.
            FatalError: the server refuses what it was asked.
        """
        body: dict[str, Any] = {
            "model": self._name,
            "stream": True,
            "messages": [_outgoing(message) for message in messages],
        }
        if tools:
            body["tools"] = [_described(tool) for tool in tools]
        answer = _Answer()
        async with (
            httpx.AsyncClient(timeout=SILENCE_SECONDS, headers=self._headers) as client,
            client.stream("POST", self._url, json=body) as response,
        ):
            await _check(response)
            async for delta in _deltas(response):
                text = answer.add(delta)
                if text:
                    await say(text)
        return answer.message()


class _Answer:
    """An answer as it grows."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}  # by index: id, name, arguments so far

    def add(self, delta: dict[str, Any]) -> str:
        """Take in a piece; return the text that it adds."""
        for piece in delta.get("tool_calls") or ():
            call = self._calls.setdefault(piece["index"], ["", "", ""])
            function: dict[str, Any] = piece.get("function") or {}
            call[0] += piece.get("id") or ""
            call[1] += function.get("name") or ""
            call[2] += function.get("arguments") or ""
        text: str = delta.get("content") or ""
        self._texts.append(text)
        return text

    def message(self) -> Message:
        calls = [
            ToolCall(id=call_id, tool=name, arguments=_arguments(arguments))
            for _, (call_id, name, arguments) in sorted(self._calls.items())
        ]
        return Message(role="assistant", text="".join(self._texts), calls=tuple(calls))


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    text = (await response.aread()).decode(errors="replace")[:500]
    reason = f"{response.request.url}: {response.status_code} {text}"
    if response.status_code in _BUSY:
        raise RetryableError(reason, retry_after=_retry_after(response))
    raise FatalError(reason)


def _retry_after(response: httpx.Response) -> float | datetime:
    """Return what the server says: seconds, or a date."""
    said = response.headers.get("retry-after", "")
    if said.isdecimal():
        return float(said)
    with suppress(ValueError):
        return parsedate_to_datetime(said).astimezone(UTC)
    return RETRY_AFTER_SECONDS


async def _deltas(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """Yield the pieces of an answer.

    Raises:
        RetryableError: it broke off.
    """
    try:
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            if line.startswith("data:"):
                for choice in json.loads(data)["choices"]:
                    yield choice["delta"]
    except httpx.TransportError as error:
        raise RetryableError(f"the answer broke off: {error!r}") from error
    raise RetryableError("the answer broke off")


def _arguments(text: str) -> dict[str, str]:
    """Return a call's arguments, which are texts; what is no object has none."""
    with suppress(ValueError):
        found: Any = json.loads(text or "{}")
        if isinstance(found, dict):
            return {str(name): str(value) for name, value in cast("dict[Any, Any]", found).items()}
    return {}


def _outgoing(message: Message) -> dict[str, Any]:
    """Return a message as the protocol has it."""
    plain: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        plain["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.tool, "arguments": json.dumps(call.arguments)},
            }
            for call in message.calls
        ]
    if message.call_id:
        plain["tool_call_id"] = message.call_id
    return plain


def _described(tool: Tool) -> dict[str, Any]:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema(),
    }
    return {"type": "function", "function": function}
