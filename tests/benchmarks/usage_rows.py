"""Rows about what is billed: active CPU and memory, against a program that always runs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from fluvial.client import Client
from tests.benchmarks.figures import Figure
from tests.benchmarks.systems import REPO, fluvial

_MONITOR = REPO / "examples" / "monitor"
_ENDPOINTS = 1000
_ROUNDS = 24  # one an hour, for a day; what lies between two costs nothing and is left out
_HOUR_SECONDS = 3600.0
_LATENCY_SECONDS = 0.1  # of an endpoint
_ROUND_SECONDS = 240.0
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


def z3() -> Iterator[Figure]:
    """The hourly monitor of 1,000 endpoints for a simulated day: billed, against always on."""
    billed: list[tuple[float, float, float]] = []
    with _endpoints() as url, fluvial("disk", _MONITOR) as ours:
        token = (ours.home / "token").read_text().strip()
        with Client(ours.control, token) as client:
            urls = [f"{url}/{number}" for number in range(_ENDPOINTS)]
            _round(client, urls)  # the first start of the app's zygote
            billed = [_round(client, urls) for _ in range(_ROUNDS)]
            found = client.usage("monitor")
    prices, memory = found["prices"], found["total"]["always_on"]["memory"]
    hour = found["total"]["always_on"]["cpu"] / prices["cpu_hour"]
    gigabytes = memory / prices["gb_hour"] / hour
    always = prices["cpu_hour"] + gigabytes * prices["gb_hour"]
    yield Figure(
        "Z3 cost of an hour (always on: one CPU and the app's memory)",
        "µ$",
        [1e6 * cost for _, _, cost in billed],
        [1e6 * always] * _ROUNDS,
        "≤ 0.05×",
    )
    yield Figure("Z3 CPU", "s per hour", [cpu for cpu, _, _ in billed], [_HOUR_SECONDS] * _ROUNDS)
    yield Figure(
        "Z3 memory",
        "GB s per hour",
        [memory for _, memory, _ in billed],
        [gigabytes * _HOUR_SECONDS] * _ROUNDS,
    )


def _round(client: Client, urls: list[str]) -> tuple[float, float, float]:
    """Check all endpoints once; return CPU seconds, gigabyte-seconds and cost."""
    before = client.usage("monitor")["total"]
    run = client.start("monitor", "watch", [urls, 1, 0.0])
    report = client.result(run.run_id, wait_seconds=_ROUND_SECONDS)
    if report.status != "completed":
        raise RuntimeError(f"a round ended as {report.status}")
    after = client.usage("monitor")["total"]
    return (
        after["active_cpu_seconds"] - before["active_cpu_seconds"],
        after["memory_gb_seconds"] - before["memory_gb_seconds"],
        after["cost"]["total"] - before["cost"]["total"],
    )


@contextmanager
def _endpoints() -> Generator[str]:
    """Serve endpoints that answer after a while; yield their URL."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_answer, "127.0.0.1", 0, backlog=1024))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(_LATENCY_SECONDS)
        writer.write(_ANSWER)
        await writer.drain()
    finally:
        writer.close()
