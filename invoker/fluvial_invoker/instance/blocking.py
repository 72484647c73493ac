"""ASGI's `receive` and `send` for code that runs in a thread and may block there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fluvial_invoker.instance.asgi import Message, Receive, Send
from fluvial_invoker.instance.credit import ClientGoneError


class BlockingExchange:
    """One request and its response, used by one thread while the loop's thread runs the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive, send: Send) -> None:
        self._loop = loop
        self._receive = receive
        self._send = send
        self._has_more = True

    def read(self) -> bytes:
        """Return the next piece of the request's body, b"" at its end.

        Raises:
            ClientGoneError: the client went away before the end.
        """
        while self._has_more:
            message = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if message["type"] == "http.disconnect":
                raise ClientGoneError("the client went away while it sent the body")
            self._has_more = message["more_body"]
            if message["body"]:
                return bytes(message["body"])
        return b""

    def write(self, messages: Iterable[Message]) -> None:
        """Send parts of the response; wait until the gateway takes them.

        Raises:
            ClientGoneError: nobody reads the response any more.
            InvalidResponseError: the response cannot be sent like that.
        """
        batch = list(messages)
        if batch:
            asyncio.run_coroutine_threadsafe(self._send_all(batch), self._loop).result()

    async def _next(self) -> Message:
        return await self._receive()

    async def _send_all(self, messages: list[Message]) -> None:
        for message in messages:
            await self._send(message)
