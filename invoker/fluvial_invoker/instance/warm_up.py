"""Serves one request inside the zygote, so that its children find nothing left to initialise.

The event loop is closed before the first fork: a loop must never be shared by two processes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import MutableMapping
from typing import Any, Final

import uvloop

from fluvial.encryption import AppKeys
from fluvial.wire import PROTOCOL_VERSION, FrameReader, FrameType, pack
from fluvial_invoker.instance.asgi import HttpInvocation, Receive, Send
from fluvial_invoker.instance.deadlines import Deadlines
from fluvial_invoker.instance.durable import live_runs
from fluvial_invoker.instance.functions import Functions
from fluvial_invoker.instance.idle import IdleWatch
from fluvial_invoker.instance.invocations import Admission
from fluvial_invoker.instance.links import Links
from fluvial_invoker.instance.metering import start_metering
from fluvial_invoker.instance.thread_metering import MeteredExecutor

_SECONDS: Final = 10.0
_CREDENTIAL: Final = b"warm-up"


def warm_up() -> None:
    """Run a link, a request and the keys once."""
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(asyncio.wait_for(_serve_once(loop), _SECONDS))
    finally:
        loop.close()


async def _serve_once(loop: asyncio.AbstractEventLoop) -> None:
    start_metering(loop)
    keys = AppKeys("warm-up", {"k": os.urandom(32)}, "k")
    keys.public_key()
    admission = Admission(
        loop, IdleWatch(loop, _SECONDS, _nothing), Deadlines(loop), max_concurrency=1
    )
    functions = Functions(
        app=_hello,
        http_class=HttpInvocation,
        interface="asgi",
        state=None,
        runs=live_runs(keys, MeteredExecutor(1)),  # without work it starts no thread
        keys=keys,
        deployment="",
        instance="",
        loop=loop,
    )
    links = Links(
        instance="warm-up",
        functions=functions,
        admission=admission,
        credentials=_Credentials(),
        on_unfit=_ignore,
    )
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(links.new_link, theirs)
        await loop.sock_sendall(ours, _request())
        await _read_to_the_end(loop, ours)
        transport.close()


def _request() -> bytes:
    hello = pack(FrameType.HELLO, 0, PROTOCOL_VERSION, _CREDENTIAL, "zygote", 1, "")
    headers = [[b"host", b"localhost"]]
    fields = ("inv_", "GET", b"/", headers, None, "http", "1.1", 1000, False)
    return hello + pack(FrameType.REQUEST, 1, *fields)


async def _read_to_the_end(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    reader = FrameReader()
    while data := await loop.sock_recv(sock, 65536):
        if any(header[0] == FrameType.FINISHED for header, _ in list(reader.feed(data))):
            return
    raise ConnectionError("the warm-up request was not answered")


async def _hello(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    await receive()
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"warm"})


class _Credentials:
    has_unused_credentials = False

    def redeem(self, credential: bytes, /) -> bool:
        return credential == _CREDENTIAL


def _nothing() -> None:
    return None


def _ignore(_: str) -> None:
    return None
