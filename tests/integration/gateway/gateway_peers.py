"""The peers of the data plane, scripted: instances, the invoker, HTTP clients; real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import uvloop

from fluvial import wire
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.wire import FrameType, Framing
from fluvial_gateway.hosts import HostTable, Routes
from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_protocol import HttpConnection
from fluvial_gateway.invoker_client import Acquired, RefusedError
from fluvial_gateway.link_calls import LinkContext
from fluvial_gateway.pool_contract import PoolLimits
from fluvial_gateway.router import Router
from fluvial_gateway.webhook_exchanges import WebhookDesk, WebhookReceiver

PATIENCE_SECONDS = 10.0  # a test that waits longer has failed
DEPLOYMENT = "dpl_one"
Frame = tuple[list[Any], bytes]
Answering = Callable[["PeerLink", list[Any], bytes], None]


LoopFactory = Callable[[], asyncio.AbstractEventLoop]
LOOPS: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
loops_in_use: list[LoopFactory] = []  # the test's, set by the folder's fixture


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine on the event loop that the test is about."""
    with asyncio.Runner(loop_factory=loops_in_use[-1]) as runner:
        runner.run(main)


class PeerLink(asyncio.Protocol):
    """An instance's side of one link."""

    def __init__(self, peer: InstancePeer) -> None:
        self._peer = peer
        self._reader = wire.FrameReader()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._peer.links.append(self)

    def data_received(self, data: bytes) -> None:
        for header, body in self._reader.feed(data):
            self._peer.on_frame(self, header, body)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    def send(self, kind: int, slot: int, *fields: object, body: bytes = b"") -> None:
        self.transport.write(wire.pack(kind, slot, *fields, body=body))

    def welcome(self, instance: str, max_concurrency: int = 100) -> None:
        self.send(FrameType.WELCOME, 0, wire.PROTOCOL_VERSION, instance, max_concurrency)

    def tell_health(self, trouble: str = "", *, claimed: int = -1, limit: int = 100) -> None:
        """Speak as the watchdog; on the connection that it was given."""
        self.send(FrameType.HEALTH, 0, trouble, claimed, [limit, 0, 0, 0, 0, 0, 0])

    def respond(
        self,
        slot: int,
        body: bytes = b"hello",
        *,
        status: int = 200,
        headers: bytes = b"content-type: text/plain\r\n",
        framing: Framing = Framing.LENGTH,
        more: bool = False,
        finish: bool = True,
    ) -> None:
        """Send a response, by default a whole one with its FINISHED."""
        head = b"HTTP/1.1 %d OK\r\n%b" % (status, headers)
        if framing is Framing.LENGTH and b"content-length" not in headers:
            head += b"content-length: %d\r\n" % len(body)
        self.send(FrameType.RESPONSE, slot, status, len(head), int(framing), more, body=head + body)
        if finish and not more:
            self.finish(slot)

    def continue_response(self, slot: int, body: bytes, *, more: bool) -> None:
        self.send(FrameType.RESPONSE_BODY, slot, more, body=body)

    def finish(self, slot: int, outcome: str = "ok", cpu_us: int = 7) -> None:
        self.send(FrameType.FINISHED, slot, cpu_us, outcome)


class InstancePeer:
    """An instance: welcomes, and either answers by a function or lets the test read its frames."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self.links: list[PeerLink] = []
        self.welcomes = True
        self.max_concurrency = 100
        self.watched: asyncio.Future[PeerLink] = asyncio.get_running_loop().create_future()
        self.is_dead = False  # since before it is dialled
        self.answering: Answering | None = None
        self._frames: asyncio.Queue[Frame] = asyncio.Queue()
        self._server: asyncio.AbstractServer | None = None

    @property
    def link(self) -> PeerLink:
        return self.links[-1]

    async def listen(self) -> None:
        if not self.is_dead:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: PeerLink(self), str(self.path))

    async def die(self) -> None:
        """End like a killed process: every connection is gone at once."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self.links:
            link.transport.abort()
        if self.watched.done():
            self.watched.result().transport.abort()

    def on_frame(self, link: PeerLink, header: list[Any], body: bytes) -> None:
        if header[0] == FrameType.HELLO:
            if self.welcomes:
                link.welcome(self.name, self.max_concurrency)
        elif header[0] == FrameType.WATCH:
            assert isinstance(header[2], bytes)
            self.links.remove(link)
            self.watched.set_result(link)
        elif self.answering is not None and header[0] in (FrameType.REQUEST, FrameType.INVOKE):
            self.answering(link, header, body)
        else:
            self._frames.put_nowait((header, body))

    async def next(self, kind: FrameType) -> Frame:
        """Return the next frame, which must be of this kind."""
        header, body = await self.next_any()
        assert FrameType(header[0]) is kind, f"{FrameType(header[0])!r} where {kind!r} was awaited"
        return header, body

    async def next_any(self) -> Frame:
        """Return the next frame."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._frames.get()

    async def next_request(self) -> list[Any]:
        """Return the next REQUEST's header; the frames before it stay for later."""
        earlier: list[Frame] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (frame := await self._frames.get())[0][0] != FrameType.REQUEST:
                earlier.append(frame)
        for kept in earlier:
            self._frames.put_nowait(kept)
        return frame[0]

    async def link_lost(self) -> None:
        """Wait until the gateway has dropped its link."""
        while not self.links:
            await self.next_any()
        await self.link.lost.wait()

    def no_frame(self) -> bool:
        return self._frames.empty()


@dataclass
class PeerInvoker:
    """The invoker: starts instance peers in the order in which they are asked for."""

    folder: Path
    prepare: list[Callable[[InstancePeer], None]] = field(default_factory=list[Any])
    refusals: list[RefusedError] = field(default_factory=list[Any])
    instances: list[InstancePeer] = field(default_factory=list[Any])
    excluded: list[list[str]] = field(default_factory=list[Any])
    killed: list[str] = field(default_factory=list[Any])
    alone: list[bool] = field(default_factory=list[Any])
    tier: str = "zygote"
    repeats: int = 0  # how often it still hands out the instance that it handed out last
    gate: asyncio.Event | None = None  # ACQUIRE waits for it
    kill_asked: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    _on_dead: list[Callable[[str, str], None]] = field(default_factory=list[Any])
    _started: asyncio.Queue[InstancePeer] = field(default_factory=asyncio.Queue[Any])

    def subscribe(self, on_dead: Callable[[str, str], None]) -> None:
        self._on_dead.append(on_dead)

    async def acquire(
        self,
        spec: DeploymentSpec,
        exclude: Sequence[str],
        *,
        deadline_seconds: float,
        alone: bool = False,
    ) -> Acquired:
        self.asked.set()
        self.excluded.append(list(exclude))
        self.alone.append(alone)
        if self.gate is not None:
            await self.gate.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        if self.repeats and self.instances:
            self.repeats -= 1
            return self._acquired(self.instances[-1])
        number = len(self.instances)
        peer = InstancePeer(f"ins_{number}", self.folder / f"{number}.sock")
        if number < len(self.prepare):
            self.prepare[number](peer)
        self.instances.append(peer)
        await peer.listen()
        self._started.put_nowait(peer)
        return self._acquired(peer)

    def _acquired(self, peer: InstancePeer) -> Acquired:
        return Acquired(
            instance=peer.name,
            address=str(peer.path),
            credential=b"c" * 16,
            tier=self.tier,
            phases_ms={},
        )

    def kill(self, instance: str, grace_ms: int) -> None:
        self.killed.append(instance)
        self.kill_asked.set()

    def tell_dead(self, instance: str, reason: str) -> None:
        for on_dead in self._on_dead:
            on_dead(instance, reason)

    async def next_instance(self) -> InstancePeer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._started.get()


@dataclass
class Recorder:
    """All observers in one."""

    http: asyncio.Queue[tuple[str, str, int]] = field(default_factory=asyncio.Queue[Any])
    cold_starts: list[tuple[str, str]] = field(default_factory=list[Any])
    states: dict[str, int] = field(default_factory=dict[str, int])
    nacks: list[str] = field(default_factory=list[str])
    waiting: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def http_finished(self, app: str, outcome: str, seconds: float, cpu_us: int) -> None:
        assert seconds >= 0
        self.http.put_nowait((app, outcome, cpu_us))

    def cold_start(self, app: str, tier: str, seconds: float) -> None:
        assert seconds >= 0
        self.cold_starts.append((app, tier))

    def instances_changed(self, app: str, state: str, change: int) -> None:
        self.states[state] = self.states.get(state, 0) + change
        self.changed.set()

    def nacked(self, app: str, reason: str) -> None:
        self.nacks.append(reason)

    def waiting_changed(self, app: str, change: int) -> None:
        self.waiting += change
        self.changed.set()

    async def waits(self, count: int) -> None:
        """Wait until so many invocations wait for an instance."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.waiting < count:
                self.changed.clear()
                await self.changed.wait()

    async def next_http(self) -> tuple[str, str, int]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.http.get()


class EchoCalls:
    """Carries out calls: answers with what it was asked; some operations misbehave on purpose."""

    def __init__(self) -> None:
        self._gate = asyncio.Event()
        self._cancelled: asyncio.Queue[None] = asyncio.Queue()

    async def all_cancelled(self, count: int) -> None:
        """Wait until so many waiting calls were cancelled."""
        for _ in range(count):
            await self._cancelled.get()

    async def handle(
        self, link_context: LinkContext, operation: str, arguments: dict[str, Any], body: bytes
    ) -> tuple[str, dict[str, Any], bytes]:
        if operation == "wait":
            try:
                await self._gate.wait()
            except asyncio.CancelledError:
                self._cancelled.put_nowait(None)
                raise
        if operation == "fail":
            raise ValueError("secret detail")
        if operation == "who" and link_context.subject is not None:
            return "ok", {"subject": asdict(link_context.subject)}, b""
        return "ok", {"app": link_context.app, "operation": operation, **arguments}, body


@dataclass
class Response:
    """What a client read."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A raw HTTP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self, *, head_only: bool = False) -> Response:
        """Read one response with Content-Length or chunks."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            status, headers = await self.head()
            if head_only or status in (204, 304):
                return Response(status, headers, b"")
            if headers.get("transfer-encoding") == "chunked":
                return Response(status, headers, await self._chunks())
            size = int(headers["content-length"]) if "content-length" in headers else None
            body = await (self.reader.read() if size is None else self.reader.readexactly(size))
            return Response(status, headers, body)

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.split(": ", 1) for line in lines[1:] if line]
        return int(lines[0].split()[1]), {name: value for name, value in pairs}  # noqa: C416 typed

    async def _chunks(self) -> bytes:
        body = b""
        while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def next_bytes(self) -> bytes:
        """Read what has come, or until something comes; nothing if the connection was broken."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read(65536)
            except ConnectionResetError:
                return b""

    async def rest(self) -> bytes:
        """Read until the server closes; a reset counts as closing."""
        data = b""
        async with asyncio.timeout(PATIENCE_SECONDS):
            with contextlib.suppress(ConnectionResetError):
                while piece := await self.reader.read(65536):
                    data += piece
        return data

    async def was_reset(self) -> bool:
        """Read on; return whether the connection was broken and not closed in good order."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionResetError:
                return True
            return False

    def close(self) -> None:
        self.writer.transport.abort()

    async def end(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class World:
    """A gateway's data plane with scripted peers."""

    router: Router
    front: HttpFront
    invoker: PeerInvoker
    recorder: Recorder
    calls: EchoCalls
    port: int
    spec_reads: int = 0
    clients: list[Client] = field(default_factory=list[Any])

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        return client

    async def warm(self) -> InstancePeer:
        """Return an instance that is up and has no invocation."""
        client = await self.client()
        client.send(GET)
        instance = await self.invoker.next_instance()
        header, _ = await instance.next(FrameType.REQUEST)
        instance.link.respond(header[1])
        await client.response()
        await self.recorder.next_http()
        client.close()
        return instance

    async def warm_again(self, instance: InstancePeer) -> None:
        """Pass one request through: all that was written to the gateway before has been read."""
        client = await self.client()
        client.send(GET)
        header = await instance.next_request()
        instance.link.respond(header[1])
        await client.response()
        await self.recorder.next_http()
        client.close()


GET = b"GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n"


def spec(**settings: Any) -> DeploymentSpec:
    return DeploymentSpec(
        deployment=DEPLOYMENT,
        app="app",
        bundle="b",
        layer="",
        entrypoint="main:app",
        workflows=(),
        instance=InstanceSettings(**settings),
    )


@contextlib.asynccontextmanager
async def open_world(
    *,
    limits: HttpLimits | None = None,
    pool_limits: PoolLimits | None = None,
    deployment: DeploymentSpec | None = None,
    also: Collection[str] = (),
    spec_fails: bool = False,
    clock: Callable[[], float] = time.monotonic,
    webhooks: WebhookReceiver | None = None,
    max_webhooks: int = 100,
) -> AsyncGenerator[World]:
    """Run a data plane with one deployment, and `also` others like it; fine resolution makes
    deadlines prompt."""
    known = deployment or spec()

    async def find(deployment_id: str) -> DeploymentSpec | None:
        world.spec_reads += 1
        if spec_fails:
            raise ValueError("a bug in the catalogue")
        if deployment_id in also:
            return replace(known, deployment=deployment_id)
        return known if deployment_id == known.deployment else None

    with tempfile.TemporaryDirectory(prefix="fv-") as folder:
        invoker = PeerInvoker(Path(folder))
        recorder, calls = Recorder(), EchoCalls()
        router = Router(
            spec=find,
            invoker=invoker,
            calls=calls,
            pool_observer=recorder,
            http_observer=recorder,
            gateway="gw_test",
            partitions=64,
            app_url=lambda app: f"http://{app}.localhost",
            limits=pool_limits or PoolLimits(resolution_seconds=0.01),
            clock=clock,
        )
        routes = Routes(
            production={"app": DEPLOYMENT, "gone": "dpl_gone"},
            deployments={DEPLOYMENT: "app"},
            hosts={"shop.example.com": "app"},
            default_app="app",
        )
        limits = limits or HttpLimits(resolution_seconds=0.01)
        desk = None
        if webhooks is not None:
            desk = WebhookDesk(webhooks, recorder, max_exchanges=max_webhooks)
        front = HttpFront(router, HostTable(routes), limits, webhooks=desk)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpConnection(front), "127.0.0.1", 0)
        world = World(router, front, invoker, recorder, calls, server.sockets[0].getsockname()[1])
        try:
            yield world
        finally:
            server.close()
            for client in world.clients:
                await client.end()
            await front.drain(0.0)
            if desk is not None:
                await desk.close()
                assert desk.held_bytes == 0
            await router.close()
            for instance in invoker.instances:
                await instance.die()
