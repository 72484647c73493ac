"""Rows about HTTP: an echo, 100 MB each way, and what the gateway adds to one request."""

from __future__ import annotations

import asyncio
import socket
import statistics
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.benchmarks.bench_http import LoadConnection
from tests.benchmarks.figures import Figure
from tests.benchmarks.http_app.main import STREAM_BYTES
from tests.benchmarks.systems import cpu_seconds, fluvial, uvicorn_direct

_APP = Path(__file__).parent / "http_app"
_PAIRS = 5
_SECONDS = 2.0
_WARM_UP_SECONDS = 0.5
_ECHO = bytes(10 * 1024)
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two servers."""

    port: int
    pid: int


def h2() -> Iterator[Figure]:
    """POST echo of 10 KiB on 32 connections, and 100 MB up and down on one."""
    head = b"POST /echo HTTP/1.1\r\nHost: http.localhost\r\nContent-Length: %d\r\n\r\n" % len(_ECHO)
    with _sides() as (ours, theirs):
        echoes = [(_echo(ours, head + _ECHO), _echo(theirs, head + _ECHO)) for _ in range(_PAIRS)]
        before = _memory_mib(ours, "VmRSS")
        streams = {
            name: [(stream(ours), stream(theirs)) for _ in range(_PAIRS)]
            for name, stream in (("up", _up), ("down", _down))
        }
        peaks = _memory_mib(ours, "VmHWM")
    grown = [sum(peaks[pid] - before[pid] for pid in before if pid in peaks)]
    rates = [(a[0], b[0]) for a, b in echoes]
    costs = [(a[1], b[1]) for a, b in echoes]
    yield Figure("H2 POST echo of 10 KiB", "/s", *_columns(rates), "≥ 0.7×")
    yield Figure("H2 CPU µs per echo", "µs", *_columns(costs))
    for name, pairs in streams.items():
        yield Figure(f"H2 100 MB {name}", "MB/s", *_columns(pairs), "≥ 0.7×")
    yield Figure("H2 memory grown by 1 GB streamed, all processes", "MiB", grown, [], "bounded")


def h3() -> Iterator[Figure]:
    """GET hello on one connection: p50 latency, and what the gateway adds."""
    request = b"GET / HTTP/1.1\r\nHost: http.localhost\r\n\r\n"
    with _sides() as (ours, theirs):
        pairs = [(_latency_us(ours, request), _latency_us(theirs, request)) for _ in range(_PAIRS)]
    yield Figure("H3 GET hello, one connection, p50", "µs", *_columns(pairs))
    yield Figure("H3 added by the gateway", "µs", [a - b for a, b in pairs], [], "≤ 150 µs")


@contextmanager
def _sides() -> Generator[tuple[Side, Side]]:
    with ExitStack() as stack:
        system = stack.enter_context(fluvial("process", _APP))
        url, pid = stack.enter_context(uvicorn_direct("main:app", _APP))
        ours = Side(_port(system.http), system.pid)
        theirs = Side(_port(url), pid)
        for side in (ours, theirs):
            _latencies(side, b"GET / HTTP/1.1\r\nHost: http.localhost\r\n\r\n", 12, 1, seconds=0.2)
        yield ours, theirs


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


def _echo(side: Side, request: bytes) -> tuple[float, float]:
    """Return echoes per second, and the CPU µs that the server used for each."""
    before, began = cpu_seconds(side.pid), time.perf_counter()
    done = _latencies(side, request, len(_ECHO), 32, warm_up=0.0)
    elapsed = time.perf_counter() - began
    return len(done) / elapsed, (cpu_seconds(side.pid) - before) * 1e6 / len(done)


def _latency_us(side: Side, request: bytes) -> float:
    return statistics.median(_latencies(side, request, 12, 1)) * 1e6


def _latencies(
    side: Side,
    request: bytes,
    body_bytes: int,
    connections: int,
    *,
    warm_up: float = _WARM_UP_SECONDS,
    seconds: float = _SECONDS,
) -> list[float]:
    """Send requests one after the other on each connection; return the seconds that each took."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        found: list[float] = []
        opened = [
            await loop.create_connection(
                lambda: LoadConnection(request, body_bytes, found), "127.0.0.1", side.port
            )
            for _ in range(connections)
        ]
        await asyncio.sleep(warm_up)
        if warm_up:
            found.clear()
        await asyncio.sleep(seconds)
        measured = list(found)
        for _, connection in opened:
            connection.stop()
        return measured

    return uvloop.run(main())


def _up(side: Side) -> float:
    """Send 100 MB; return MB/s."""
    with socket.create_connection(("127.0.0.1", side.port)) as client:
        began = time.perf_counter()
        client.sendall(
            b"POST /up HTTP/1.1\r\nHost: http.localhost\r\nContent-Length: %d\r\n\r\n"
            % STREAM_BYTES
        )
        piece, left = bytes(_PIECE_BYTES), STREAM_BYTES
        while left:
            client.sendall(piece[:left])
            left -= min(left, _PIECE_BYTES)
        answer = b""
        while not answer.endswith(b"\r\n\r\n%d" % STREAM_BYTES):
            piece = client.recv(4096)
            if not piece:
                raise RuntimeError(f"the server answered {answer!r}")
            answer += piece
        return STREAM_BYTES / 1e6 / (time.perf_counter() - began)


def _down(side: Side) -> float:
    """Receive 100 MB; return MB/s."""
    with socket.create_connection(("127.0.0.1", side.port)) as client:
        began = time.perf_counter()
        client.sendall(b"GET /down HTTP/1.1\r\nHost: http.localhost\r\n\r\n")
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
        if b" 200 " not in head:
            raise RuntimeError(f"the server answered {head!r}")
        got, room = len(body), bytearray(_PIECE_BYTES)
        while got < STREAM_BYTES:
            got += client.recv_into(room)
        return STREAM_BYTES / 1e6 / (time.perf_counter() - began)


def _memory_mib(side: Side, field: str) -> dict[int, float]:
    return {pid: _status_mib(pid, field) for pid in _processes(side.pid)}


def _status_mib(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return 0.0


def _processes(root: int) -> list[int]:
    """Return a process with all its descendants."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += map(int, children.read_text().split())
    return found
