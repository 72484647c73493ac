"""HTTP through the gateway against uvicorn serving the same app directly.

Both sides run in processes of their own, interleaved (A B A B …), and so does the load: a
client with a fixed number of keep-alive connections. Quoted are the ratios per pair, median
with minimum and maximum; absolute figures move with the machine. CPU counts all server processes.

    python tests/benchmarks/bench_http.py [--pairs 5] [--seconds 3] [--connections 32] [--json FILE]

The instance is a stand-in that lives in this file: it reads frames, runs an ASGI-shaped callable in
a task per request, and serialises the head, as an instance does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

from fluvial import wire
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.wire import FrameType, Framing
from fluvial_gateway.data_plane import DataPlane
from fluvial_gateway.hosts import HostTable, Routes
from fluvial_gateway.invoker_client import Acquired
from fluvial_gateway.link_calls import LinkContext
from fluvial_gateway.router import Router

DEPLOYMENT = "dpl_bench"
HELLO = b"Hello, world"
WARM_UP_SECONDS = 0.5


async def hello_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The app of both sides: 12 bytes for a GET, an echo for a POST."""
    body = HELLO
    if scope["method"] == "POST":
        body = b""
        while True:
            event = await receive()
            body += event["body"]
            if not event["more_body"]:
                break
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class StandIn(asyncio.Protocol):
    """An instance's link: frames in, a task per request, frames out."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._reader = wire.FrameReader()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bodies: dict[int, tuple[list[bytes], asyncio.Event]] = {}

    def data_received(self, data: bytes) -> None:
        for header, body in self._reader.feed(data):
            if header[0] == FrameType.REQUEST:
                self._request(header, body)
            elif header[0] == FrameType.REQUEST_BODY:
                chunks, complete = self._bodies[header[1]]
                chunks.append(body)
                if not header[2]:
                    complete.set()
            elif header[0] == FrameType.HELLO:
                welcome = (wire.PROTOCOL_VERSION, "ins_bench", 1000)
                self._transport.write(wire.pack(FrameType.WELCOME, 0, *welcome))

    def _request(self, header: list[Any], body: bytes) -> None:
        complete = asyncio.Event()
        if not header[10]:
            complete.set()
        self._bodies[header[1]] = ([body], complete)
        task = asyncio.get_running_loop().create_task(self._serve(header))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, header: list[Any]) -> None:
        slot = header[1]
        chunks, complete = self._bodies[slot]
        scope = {
            "type": "http",
            "method": header[3],
            "path": header[4].decode("ascii"),
            "headers": header[5],
            "client": header[6],
            "scheme": header[7],
            "http_version": header[8],
        }
        heads: list[bytes] = []

        async def receive() -> dict[str, Any]:
            await complete.wait()
            return {"type": "http.request", "body": b"".join(chunks), "more_body": False}

        async def send(event: dict[str, Any]) -> None:
            if event["type"] == "http.response.start":
                lines = [b"HTTP/1.1 %d OK\r\n" % event["status"]]
                lines += [b"%b: %b\r\n" % pair for pair in event["headers"]]
                heads.append(b"".join(lines))
                return
            head = heads[0]
            fields = (200, len(head), int(Framing.LENGTH), False)
            frame = wire.pack(FrameType.RESPONSE, slot, *fields, body=head + event["body"])
            self._transport.write(frame + wire.pack(FrameType.FINISHED, slot, 1, "ok"))

        await hello_app(scope, receive, send)
        del self._bodies[slot]


class BenchInvoker:
    """Hands out the one stand-in."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def acquire(
        self,
        spec: DeploymentSpec,
        exclude: Sequence[str],
        *,
        deadline_seconds: float,
        alone: bool = False,
    ) -> Acquired:
        return Acquired(
            instance="ins_bench",
            address=self._address,
            credential=b"c" * 16,
            tier="warm",
            phases_ms={},
        )

    def kill(self, instance: str, grace_ms: int) -> None: ...

    def subscribe(self, on_dead: Callable[[str, str], None]) -> None: ...


class Silent:
    """Observers and calls that do nothing."""

    def cold_start(self, app: str, tier: str, seconds: float) -> None: ...
    def instances_changed(self, app: str, state: str, change: int) -> None: ...
    def nacked(self, app: str, reason: str) -> None: ...
    def waiting_changed(self, app: str, change: int) -> None: ...
    def http_finished(self, app: str, outcome: str, seconds: float, cpu_us: int) -> None: ...

    async def handle(
        self, link_context: LinkContext, operation: str, arguments: dict[str, Any], body: bytes
    ) -> tuple[str, dict[str, Any], bytes]:
        return "unavailable", {}, b""


def run_stand_in(address: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(StandIn, address)
        await server.serve_forever()

    uvloop.run(main())


def run_gateway(listener: socket.socket, address: str) -> None:
    spec = DeploymentSpec(
        deployment=DEPLOYMENT,
        app="bench",
        bundle="",
        layer="",
        entrypoint=None,
        workflows=(),
        instance=InstanceSettings(max_concurrency=1000),
    )

    async def find(deployment: str) -> DeploymentSpec | None:
        return spec

    async def main() -> None:
        silent = Silent()
        router = Router(
            spec=find,
            invoker=BenchInvoker(address),
            calls=silent,
            pool_observer=silent,
            http_observer=silent,
            gateway="gw_bench",
            partitions=64,
            app_url=lambda app: f"http://{app}.localhost",
        )
        routes = Routes(production={"bench": DEPLOYMENT}, default_app="bench")
        await DataPlane(router, HostTable(routes), listener=listener).serve()

    uvloop.run(main())


def run_uvicorn(listener: socket.socket) -> None:
    config = uvicorn.Config(
        cast("Any", hello_app),
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
    )

    async def main() -> None:
        await uvicorn.Server(config).serve([listener])

    uvloop.run(main())


class LoadConnection(asyncio.Protocol):
    """One keep-alive connection: sends a request, awaits its response, sends the next."""

    def __init__(self, payload: bytes, body_bytes: int, latencies: list[float]) -> None:
        self._payload = payload
        self._body_bytes = body_bytes
        self._latencies = latencies
        self._received = 0
        self._expected = 0
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def _send(self) -> None:
        self._received = self._expected = 0
        self._sent_at = time.perf_counter()
        self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        if not self._expected:
            if not data.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {data[:200]!r}")
            self._expected = data.index(b"\r\n\r\n") + 4 + self._body_bytes
        self._received += len(data)
        if self._received >= self._expected:
            self._latencies.append(time.perf_counter() - self._sent_at)
            self._send()

    def stop(self) -> None:
        self._transport.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One side of one pair."""

    requests_per_second: float
    cpu_us_per_request: float
    cpu_us_by_process: list[float]
    p50_us: float
    p99_us: float


async def load(
    port: int, pids: Sequence[int], payload: bytes, body_bytes: int, arguments: argparse.Namespace
) -> Sample:
    """Send requests for a while and measure."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    connections = [
        (
            await loop.create_connection(
                lambda: LoadConnection(payload, body_bytes, latencies), "127.0.0.1", port
            )
        )[1]
        for _ in range(arguments.connections)
    ]
    await asyncio.sleep(WARM_UP_SECONDS)
    latencies.clear()
    before, began = [cpu_seconds(pid) for pid in pids], time.perf_counter()
    await asyncio.sleep(arguments.seconds)
    elapsed = time.perf_counter() - began
    cpu = [cpu_seconds(pid) - used for pid, used in zip(pids, before, strict=True)]
    for connection in connections:
        connection.stop()
    count = len(latencies)
    ordered = sorted(latencies)
    return Sample(
        requests_per_second=count / elapsed,
        cpu_us_per_request=sum(cpu) / count * 1e6,
        cpu_us_by_process=[used / count * 1e6 for used in cpu],
        p50_us=ordered[count // 2] * 1e6,
        p99_us=ordered[count * 99 // 100] * 1e6,
    )


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def requests(echo_bytes: int) -> dict[str, tuple[bytes, int]]:
    """Return the requests of the two workloads with the size of their responses' bodies."""
    headers = (
        b"Host: bench.localhost\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
        b"Accept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=0123456789abcdef\r\n"
    )
    echo = b"x" * echo_bytes
    length = b"Content-Length: %d\r\n" % echo_bytes
    return {
        "GET hello": (b"GET /hello HTTP/1.1\r\n" + headers + b"\r\n", len(HELLO)),
        "POST echo": (
            b"POST /echo HTTP/1.1\r\n" + headers + length + b"\r\n" + echo,
            echo_bytes,
        ),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start both sides, load them in turn, and return what was measured."""
    context = multiprocessing.get_context("spawn")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        address = str(Path(folder) / "instance.sock")
        direct, through = _listener(), _listener()
        servers = [
            context.Process(target=run_stand_in, args=(address,), daemon=True),
            context.Process(target=run_gateway, args=(through, address), daemon=True),
            context.Process(target=run_uvicorn, args=(direct,), daemon=True),
        ]
        for server in servers:
            server.start()
        pids = [server.pid or 0 for server in servers]
        try:
            _await_address(address)
            for name, (payload, body_bytes) in requests(arguments.echo_bytes).items():
                pairs: list[tuple[Sample, Sample]] = []
                for _ in range(arguments.pairs):
                    ours = uvloop.run(
                        load(_port(through), pids[:2], payload, body_bytes, arguments)
                    )
                    theirs = uvloop.run(
                        load(_port(direct), pids[2:], payload, body_bytes, arguments)
                    )
                    pairs.append((ours, theirs))
                results[name] = _summary(pairs)
                _print(name, results[name])
        finally:
            for server in servers:
                server.terminate()
                server.join()
    return results


def _listener() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listener.setblocking(False)
    return listener


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _await_address(address: str) -> None:
    deadline = time.monotonic() + 30
    while not Path(address).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("the stand-in did not start")
        time.sleep(0.05)


def _summary(pairs: Sequence[tuple[Sample, Sample]]) -> dict[str, Any]:
    return {
        "ratio_requests_per_second": _spread(
            [ours.requests_per_second / theirs.requests_per_second for ours, theirs in pairs]
        ),
        "ratio_cpu": _spread(
            [ours.cpu_us_per_request / theirs.cpu_us_per_request for ours, theirs in pairs]
        ),
        "added_p50_us": _spread([ours.p50_us - theirs.p50_us for ours, theirs in pairs]),
        "gateway": [asdict(ours) for ours, _ in pairs],
        "uvicorn": [asdict(theirs) for _, theirs in pairs],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _print(name: str, result: dict[str, Any]) -> None:
    for side in ("gateway", "uvicorn"):
        best = max(result[side], key=lambda sample: sample["requests_per_second"])
        parts = [round(used, 1) for used in best["cpu_us_by_process"]]
        print(  # noqa: T201 the report
            f"{name:10} {side:8} best {best['requests_per_second']:8.0f}/s "
            f"{best['cpu_us_per_request']:6.1f} us CPU {parts}  "
            f"p50 {best['p50_us']:6.0f} us p99 {best['p99_us']:6.0f} us"
        )
    for key in ("ratio_requests_per_second", "ratio_cpu", "added_p50_us"):
        spread = result[key]
        print(  # noqa: T201 the report
            f"{name:10} {key}: {spread['median']:.2f} ({spread['min']:.2f} to {spread['max']:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--echo-bytes", type=int, default=10 * 1024)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
