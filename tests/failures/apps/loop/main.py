"""An async app that executes what it is sent, beside requests that wait."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NEIGHBOURS = 2
waiting: set[str] = set()
all_wait = asyncio.Event()
released = asyncio.Event()


async def app(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError("only HTTP is served here")
    name, _, pid = scope["path"].strip("/").partition("/")
    if name == "run":
        sys.stdout.write(f"{pid} begins\n")
        await execute((await body_of(receive)).decode(), send)
    elif name == "wait" and scope["method"] == "GET":
        if os.getpid() == int(pid):
            released.clear()
            arrive("GET")
            await released.wait()
        await answer(send, "waited" if os.getpid() == int(pid) else "made again")
    elif name == "wait":
        await receive()
        arrive("POST")
        await body_of(receive)
        released.set()
        await answer(send, "waited")
    elif name == "arrived":
        await all_wait.wait()
        waiting.clear()
        all_wait.clear()
        await answer(send, "arrived")
    else:
        await answer(send, str(os.getpid()))


def arrive(method: str) -> None:
    waiting.add(method)
    if len(waiting) == NEIGHBOURS:
        all_wait.set()


async def execute(code: str, send: Send) -> None:
    has_started = False

    async def sending(message: Message) -> None:
        nonlocal has_started
        has_started = True
        await send(message)

    names: dict[str, Any] = {"send": sending}
    exec("async def program():\n" + textwrap.indent(code, "    "), names)
    await names["program"]()
    if not has_started:
        await answer(send, "went on")


async def answer(send: Send, text: str) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


async def body_of(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)
