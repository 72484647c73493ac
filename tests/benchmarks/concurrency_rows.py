"""H4 and H5: many callers of handlers that wait, asynchronously and in threads."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

from tests.benchmarks.figures import Figure
from tests.benchmarks.systems import fluvial, uvicorn_direct

HERE = Path(__file__).parent
PAIRS = 5
H4_CONNECTIONS = 500
H4_SECONDS = 4.0
H5_CALLERS = 200


def h4() -> Iterator[Figure]:
    """A handler that awaits 50 ms, 500 connections, one instance: requests/s."""
    bundle = HERE / "waiting_app"
    pairs: list[tuple[float, float]] = []
    with (
        fluvial("process", bundle) as ours,
        uvicorn_direct("main:app", bundle) as (theirs, _),
    ):
        for url in (ours.http, theirs):
            _in_a_process(url, "waiting.localhost", H4_CONNECTIONS, 1.0)
        for _ in range(PAIRS):
            a, b = (
                _in_a_process(url, "waiting.localhost", H4_CONNECTIONS, H4_SECONDS)
                for url in (ours.http, theirs)
            )
            pairs.append((a, b))
    ours_per_second, theirs_per_second = ([x[i] / H4_SECONDS for x in pairs] for i in (0, 1))
    yield Figure("H4 requests/s", "/s", ours_per_second, theirs_per_second, "≥ 0.95×")


def h5() -> Iterator[Figure]:
    """WSGI: 200 callers at once of a handler that sleeps 0.5 s: seconds until all have answers."""
    with fluvial("process", HERE / "sleeping_app") as ours:
        times = [
            _in_a_process(ours.http, "sleeping.localhost", H5_CALLERS, 0.0)
            for _ in range(PAIRS + 1)
        ]
    yield Figure("H5 seconds", "s", times[1:], [0.5] * PAIRS, "≤ 1.2 s")
    yield Figure("H5 seconds, from zero", "s", times[:1], [0.5], "")


def _in_a_process(url: str, host: str, connections: int, seconds: float) -> float:
    """Load from a process of its own; see `_load` for what is returned."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    client = multiprocessing.get_context("fork").Process(
        target=_run, args=(sender, url, host, connections, seconds)
    )
    client.start()
    result: float = cast("float", receiver.recv())
    client.join()
    return result


def _run(sender: Connection, url: str, host: str, connections: int, seconds: float) -> None:
    sender.send(uvloop.run(_load(url, host, connections, seconds)))


async def _load(url: str, host: str, connections: int, seconds: float) -> float:
    """Return how many answers came within `seconds`; with 0, how long one of each took."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    began = time.perf_counter()
    until = began + seconds
    clients = [_Client(request, until, loop.create_future()) for _ in range(connections)]
    for client in clients:
        await loop.create_connection(
            partial(_same, client), address.hostname or "127.0.0.1", address.port or 80
        )
    began = time.perf_counter() if not seconds else began
    for client in clients:
        client.send()
    await asyncio.gather(*(client.done for client in clients))
    took = time.perf_counter() - began
    return sum(client.answers for client in clients) * seconds / took if seconds else took


def _same(client: _Client) -> _Client:
    return client


class _Client(asyncio.Protocol):
    """One keep-alive connection: asks again and again until it is time."""

    def __init__(self, request: bytes, until: float, done: asyncio.Future[None]) -> None:
        self.answers = 0
        self.done = done
        self._request = request
        self._until = until
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Ask."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._buffer.endswith(b"\r\n\r\nok"):
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not a 200: {self._buffer!r}")
        self._buffer = b""
        self.answers += 1
        if time.perf_counter() < self._until:
            self.send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"closed after {self._buffer!r}"))
