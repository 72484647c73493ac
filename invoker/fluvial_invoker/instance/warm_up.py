"""Serves one request inside a zygote, so that its children find nothing left to initialise.

The event loop is closed before the first fork: a loop must never be shared by two processes. What
is served in a snapshot is the app itself, through the code that serves it in an instance, but
without its lifespan; and nothing answers what it asks of the platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

import uvloop

from fluvial.encryption import AppKeys
from fluvial.wire import PROTOCOL_VERSION, FrameReader, FrameType, pack
from fluvial_invoker.instance.asgi import Receive, Send
from fluvial_invoker.instance.deadlines import Deadlines
from fluvial_invoker.instance.durable import live_runs
from fluvial_invoker.instance.functions import Functions
from fluvial_invoker.instance.hazards import join_threads
from fluvial_invoker.instance.idle import IdleWatch
from fluvial_invoker.instance.interfaces import asgi_app, invocation_class
from fluvial_invoker.instance.invocations import Admission
from fluvial_invoker.instance.lifespan import Lifespan
from fluvial_invoker.instance.links import Links
from fluvial_invoker.instance.loading import LoadedApp
from fluvial_invoker.instance.metering import start_metering
from fluvial_invoker.instance.output import WARM_UP
from fluvial_invoker.instance.thread_metering import MeteredExecutor, widen_anyio

USER_AGENT: Final = b"fluvial-warm-up"
_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0  # then it is cancelled, as by a client that has gone
_THREADS: Final = 4
_THREAD_SECONDS: Final = 1.0  # for a thread to end that was told to
_CREDENTIAL: Final = b"warm-up"
_NO_PLATFORM: Final = "the warm-up request of a snapshot cannot reach the platform"


def warm_up(frameworks: Iterable[Any] = ()) -> None:
    """Run a link, a request and the keys once, and empty apps of these frameworks' classes."""
    # Not a Runner: it would leave this thread without a loop of its own, which modules that are
    # imported later may ask for.
    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(_serve_once(LoadedApp(_hello, "asgi"), MeteredExecutor(1), "/"))
        for framework in frameworks:
            # One that fails is the deployment's problem, not the zygote's.
            with contextlib.suppress(Exception):
                loop.run_until_complete(_live_once(LoadedApp(framework(), "asgi")))
    finally:
        loop.close()


def warm_up_app(app: LoadedApp, path: str | None) -> None:
    """Let the app answer a GET, whatever it answers; end the threads that it needed for it.

    Without a path there is no request, only the loop and what the platform does on it.

    Raises:
        TimeoutError: it does not end, even when it is cancelled.
    """
    executor = MeteredExecutor(_THREADS, thread_name_prefix="warm-up")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_once(app, executor, path))
    executor.shutdown()
    join_threads(_THREAD_SECONDS)  # AnyIO's: they end with the loop's first task


async def _live_once(app: LoadedApp) -> None:
    lifespan = Lifespan(asgi_app(app, MeteredExecutor(1)))
    await lifespan.start()
    await _serve_once(app, MeteredExecutor(1), "/")
    await lifespan.stop(_SECONDS)


async def _serve_once(app: LoadedApp, executor: MeteredExecutor, path: str | None) -> None:
    loop = asyncio.get_running_loop()
    start_metering(loop)
    loop.set_default_executor(MeteredExecutor(_THREADS, thread_name_prefix="warm-up"))
    await widen_anyio(_THREADS)  # it imports most of anyio
    if path is None:
        return
    keys = AppKeys("warm-up", {"k": os.urandom(32)}, "k")
    keys.public_key()
    admission = Admission(
        loop, IdleWatch(loop, _SECONDS, _nothing), Deadlines(loop), max_concurrency=1
    )
    functions = Functions(
        app=asgi_app(app, executor),
        http_class=invocation_class(app, "cancel"),
        interface=app.interface,
        state=None,
        runs=live_runs(keys, executor),
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
        async with asyncio.timeout(_SECONDS):
            await loop.sock_sendall(ours, _request(path))
            await _read_to_the_end(loop, ours)
        transport.close()


def _request(path: str) -> bytes:
    hello = pack(FrameType.HELLO, 0, PROTOCOL_VERSION, _CREDENTIAL, "zygote", 1, "")
    headers = [[b"host", b"localhost"], [b"user-agent", USER_AGENT], [b"accept", b"*/*"]]
    deadline_ms = round(_SECONDS * 1000)
    fields = (WARM_UP, "GET", path.encode(), headers, None, "http", "1.1", deadline_ms, False)
    return hello + pack(FrameType.REQUEST, 1, *fields)


async def _read_to_the_end(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    give_up = loop.call_later(
        _ANSWER_SECONDS, sock.send, pack(FrameType.CANCEL, 1, "the warm-up is over")
    )
    reader = FrameReader()
    try:
        while data := await loop.sock_recv(sock, 65536):
            for header, _ in reader.feed(data):
                if header[0] == FrameType.FINISHED:
                    return
                if header[0] == FrameType.CALL:
                    refusal = ("unavailable", {"message": _NO_PLATFORM})
                    await loop.sock_sendall(sock, pack(FrameType.REPLY, header[1], *refusal))
    finally:
        give_up.cancel()
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
