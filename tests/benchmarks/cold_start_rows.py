"""Rows C1 to C4 and Z1: from zero, many apps from zero at once, memory, and what zero costs."""

from __future__ import annotations

import asyncio
import http.client
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx

from tests.benchmarks.figures import Figure
from tests.benchmarks.systems import Fluvial, cpu_seconds, fluvial, free_port

BUNDLE: Final = Path(__file__).parent / "fastapi_app"
PAIRS: Final = 5
STARTS: Final = 15  # cold starts for each start of uvicorn, which takes far longer
APPS_AT_ONCE: Final = 50
APPS_AT_ZERO: Final = 100
ZERO_SECONDS: Final = 60.0
_IDLE: Final = ("--idle", "0.3")
_PATIENCE_SECONDS: Final = 60.0
_MIB: Final = 1024 * 1024


def c1() -> Iterator[Figure]:
    """Cold start of a FastAPI app from its snapshot, against a fresh uvicorn process."""
    every: list[float] = []
    pairs: list[tuple[float, float]] = []
    with fluvial("process", BUNDLE, *_IDLE) as ours:
        _await_snapshots(ours, ["hello"])
        for _ in range(PAIRS):
            times = [_cold_start_ms(ours, "hello", "snapshot") for _ in range(STARTS)]
            every += times
            pairs.append((statistics.median(times), _fresh_uvicorn_ms(BUNDLE)))
    yield Figure(
        "C1 cold start from the snapshot, FastAPI (p50)",
        "ms",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "≤ 0.02×, p50 ≤ 15 ms",
    )
    yield Figure("C1 all of these cold starts (the last: max)", "ms", sorted(every), [], "≤ 30 ms")


def c2() -> Iterator[Figure]:
    """Cold start of a FastAPI app from the generic zygote, against a fresh uvicorn process."""
    with fluvial("process", BUNDLE, *_IDLE, variables={"FLUVIAL_SNAPSHOT_MEMORY": "0"}) as ours:
        _get(ours, "hello")
        pairs = [
            (_cold_start_ms(ours, "hello", "zygote"), _fresh_uvicorn_ms(BUNDLE))
            for _ in range(PAIRS)
        ]
    yield Figure(
        "C2 cold start from the generic zygote, FastAPI",
        "ms",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "≤ 0.2×",
    )


def c3() -> Iterator[Figure]:
    """50 apps at zero hit at the same moment, against one after the other."""
    apps = [f"app{number}" for number in range(APPS_AT_ONCE)]
    pairs: list[tuple[float, float]] = []
    with fluvial("process", BUNDLE, *_IDLE) as ours:
        for app in apps:
            ours.deploy(BUNDLE, app)
        _await_snapshots(ours, apps)
        for _ in range(PAIRS):
            one_by_one = sum(_cold_start_ms(ours, app, "snapshot") for app in apps)
            _await_zero(ours)
            pairs.append((asyncio.run(_all_at_once_ms(ours, apps)), one_by_one))
    yield Figure(
        f"C3 {APPS_AT_ONCE} apps from zero at once (against one after the other)",
        "ms",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "≤ 0.6×",
    )


def c4() -> Iterator[Figure]:
    """Private memory of a FastAPI instance after 100 requests, against a uvicorn process."""
    pairs: list[tuple[float, float]] = []
    with fluvial("process", BUNDLE, "--idle", "5") as ours:
        _await_snapshots(ours, ["hello"])
        for _ in range(PAIRS):
            _await_zero(ours)
            for _ in range(100):
                _get(ours, "hello")
            (instance,) = ours.survey()["instances"]
            own = _private_mib(instance["pid"])
            with _uvicorn(BUNDLE) as (port, pid):
                for _ in range(100):
                    httpx.get(f"http://127.0.0.1:{port}").raise_for_status()
                pairs.append((own, _private_mib(pid)))
    yield Figure(
        "C4 private memory of one more FastAPI instance",
        "MiB",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "≤ 0.2×",
    )


def z1() -> Iterator[Figure]:
    """100 apps, used once and at zero since, for a minute; against one app."""
    apps = [f"app{number}" for number in range(APPS_AT_ZERO)]
    options = (*_IDLE, "--invoker-idle", "3")
    with fluvial("process", BUNDLE, *options) as many, fluvial("process", BUNDLE, *options) as one:
        for app in apps:
            many.deploy(BUNDLE, app)
        for app in apps:
            _get(many, app)
        _get(one, "hello")
        for system in (many, one):
            _await_deep_zero(system)
        before = [_cpu_without_store(system) for system in (many, one)]
        time.sleep(ZERO_SECONDS)
        spent = [
            _cpu_without_store(system) - cpu
            for system, cpu in zip((many, one), before, strict=True)
        ]
        resident = [_resident_mib(system) for system in (many, one)]
    yield Figure(
        f"Z1 CPU of {APPS_AT_ZERO} apps at zero for {ZERO_SECONDS:g} s (against one)",
        "s",
        spent[:1],
        spent[1:],
        "≤ 1.2×",
    )
    yield Figure(
        "Z1 memory of it, without the store", "MiB", resident[:1], resident[1:], "≤ 120 MiB"
    )


COLD_STARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "C1": c1,
    "C2": c2,
    "C3": c3,
    "C4": c4,
    "Z1": z1,
}


def _cold_start_ms(system: Fluvial, app: str, tier: str) -> float:
    """Return how long an app at zero takes to answer, on a connection that is open already."""
    _await_zero(system, app)
    connection = http.client.HTTPConnection(urlsplit(system.http).netloc, timeout=30)
    connection.connect()
    began = time.perf_counter()
    response = _answer(connection, app)
    elapsed = time.perf_counter() - began
    connection.close()
    came_from = response.getheader("x-fluvial-cold-start")
    if came_from != tier:
        raise RuntimeError(f"a cold start from {came_from}, not from {tier}")
    return elapsed * 1000


def _get(system: Fluvial, app: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(system.http).netloc, timeout=60)
    _answer(connection, app)
    connection.close()


def _answer(connection: http.client.HTTPConnection, app: str) -> http.client.HTTPResponse:
    connection.request("GET", "/", headers={"host": f"{app}.localhost"})
    response = connection.getresponse()
    response.read()
    if response.status != http.HTTPStatus.OK:
        raise RuntimeError(f"{app} answered {response.status}")
    return response


async def _all_at_once_ms(system: Fluvial, apps: Sequence[str]) -> float:
    """Return the time from the first request to the last answer."""
    address = urlsplit(system.http)
    open_ones = [await asyncio.open_connection(address.hostname, address.port) for _ in apps]

    async def ask(app: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET / HTTP/1.1\r\nhost: {app}.localhost\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or b"x-fluvial-cold-start: snapshot" not in head:
            raise RuntimeError(head.decode())

    began = time.perf_counter()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        await asyncio.gather(
            *(ask(app, *streams) for app, streams in zip(apps, open_ones, strict=True))
        )
    elapsed = time.perf_counter() - began
    for _, writer in open_ones:
        writer.close()
    return elapsed * 1000


def _await_snapshots(system: Fluvial, apps: Sequence[str]) -> None:
    """Use each app once, and wait until all have snapshots."""
    for app in apps:
        _get(system, app)
    _await(lambda: set(apps) <= _with_snapshots(system), "snapshots")


def _with_snapshots(system: Fluvial) -> set[str]:
    found = system.survey()["snapshots"]
    return {str(each["app"]) for each in found if each["state"] == "ready"}


def _await_zero(system: Fluvial, app: str | None = None) -> None:
    def is_at_zero() -> bool:
        return not any(app in (None, each["app"]) for each in system.survey()["instances"])

    _await(is_at_zero, "the instances to leave")


def _await_deep_zero(system: Fluvial) -> None:
    def is_at_deep_zero() -> bool:
        return not any("fluvial_invoker" in _command(pid) for pid in _family(system.pid))

    _await(is_at_deep_zero, "the invoker to leave")


def _await(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {_PATIENCE_SECONDS:g} s for {what}")
        time.sleep(0.05)


def _cpu_without_store(system: Fluvial) -> float:
    return cpu_seconds(system.pid) - sum(map(cpu_seconds, _stores(system)))


def _resident_mib(system: Fluvial) -> float:
    stores = _stores(system)
    pids = [pid for pid in _family(system.pid) if pid not in stores]
    return sum(_kib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids) / 1024


def _stores(system: Fluvial) -> list[int]:
    return [pid for pid in _family(system.pid) if "valkey" in _command(pid).split("\0")[0]]


def _family(root: int) -> list[int]:
    found: list[int] = []
    todo = [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            todo += map(int, task.read_text().split())
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _private_mib(pid: int) -> float:
    path = f"/proc/{pid}/smaps_rollup"
    return (_kib(path, "Private_Clean") + _kib(path, "Private_Dirty")) / 1024


def _kib(path: str, field: str) -> int:
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise LookupError(f"{path} has no {field}")


def _fresh_uvicorn_ms(bundle: Path) -> float:
    began = time.perf_counter()
    with _uvicorn(bundle):
        return 1000 * (time.perf_counter() - began)


@contextmanager
def _uvicorn(bundle: Path) -> Generator[tuple[int, int]]:
    """Run uvicorn in a process of its own; its port and pid, once it has answered a request."""
    port = free_port()
    arguments = ["main:app", "--port", str(port), "--log-level", "warning"]
    server = subprocess.Popen([sys.executable, "-m", "uvicorn", *arguments], cwd=bundle)
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}", timeout=30).raise_for_status()
                break
            except httpx.ConnectError:
                time.sleep(0.005)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait(30)
