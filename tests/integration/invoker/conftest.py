"""Real invoker, zygote and instance processes, and a gateway that the tests script."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fluvial.log_files import apps_folder, segments
from fluvial.manifest import DeploymentSpec, InstanceSettings
from fluvial.wire import PROTOCOL_VERSION, FrameReader, FrameType, pack

SECONDS = 30.0
APP_URL = "https://shop.example.com"


@dataclass
class Frame:
    """One frame, as it came."""

    header: list[Any]
    body: bytes

    @property
    def type(self) -> int:
        return int(self.header[0])


class Peer:
    """A framed connection that hands out frames by conversation."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._arrived = asyncio.Condition()
        self.waiting: list[Frame] = []
        self.is_closed = False
        self._pump = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def dial(cls, path: str) -> Peer:
        return cls(*await asyncio.open_unix_connection(path))

    def send(self, kind: int, conversation: int, *fields: object, body: bytes = b"") -> None:
        self._writer.write(pack(kind, conversation, *fields, body=body))

    async def next(
        self, conversation: int | None = None, kind: int | None = None, seconds: float = SECONDS
    ) -> Frame:
        """Return the next frame that fits, in order of arrival; the others keep waiting."""

        def pick() -> Frame | None:
            for frame in self.waiting:
                if conversation in (None, frame.header[1]) and kind in (None, frame.type):
                    return frame
            return None

        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: pick() is not None or self.is_closed)
            found = pick()
            if found is None:
                raise ConnectionResetError("the link is closed")
            self.waiting.remove(found)
            return found

    async def wait_closed(self, seconds: float = SECONDS) -> None:
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: self.is_closed)

    async def close(self) -> None:
        self._writer.close()
        await asyncio.wait_for(self._pump, SECONDS)

    def abort(self) -> None:
        self._writer.transport.abort()

    async def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(1 << 20):
                frames = [Frame(*pair) for pair in self._frames.feed(data)]
                async with self._arrived:
                    self.waiting += frames
                    self._arrived.notify_all()
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        async with self._arrived:
            self.is_closed = True
            self._arrived.notify_all()


@dataclass
class Reply:
    """A whole HTTP response, as a gateway assembles it."""

    status: int
    head: bytes
    body: bytes
    framing: int
    outcome: str
    cpu_us: int
    broken: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


class InstanceLink(Peer):
    """A gateway's link to an instance."""

    _last = 0

    def hello(self, credential: bytes, *, partitions: int = 64, token: bytes = b"") -> None:
        said = (PROTOCOL_VERSION, credential, "gateway-1", partitions, APP_URL, token)
        self.send(FrameType.HELLO, 0, *said)

    def request(
        self,
        target: str = "/",
        *,
        method: str = "GET",
        body: bytes = b"",
        more: bool = False,
        headers: dict[str, str] | None = None,
        deadline_ms: int = 30_000,
    ) -> int:
        """Send REQUEST; return its id."""
        self._last += 1
        pairs = [[b"host", b"app.localhost"]]
        pairs += [[name.encode(), value.encode()] for name, value in (headers or {}).items()]
        fields = (method, target.encode(), pairs, ["127.0.0.1", 4711], "http", "1.1")
        invocation = f"inv_{self._last:024d}"
        self.send(FrameType.REQUEST, self._last, invocation, *fields, deadline_ms, more, body=body)
        return self._last

    async def reply(self, number: int, *, grant: bool = True) -> Reply:
        """Assemble the response to a request."""
        reply = Reply(0, b"", b"", -1, "", 0)
        while True:
            frame = await self.next(number)
            match frame.type:
                case FrameType.RESPONSE:
                    _, _, reply.status, head_bytes, reply.framing, _ = frame.header
                    reply.head = frame.body[:head_bytes]
                    reply.body = frame.body[head_bytes:]
                    reply.headers = _headers(reply.head)
                    taken = len(reply.body)
                case FrameType.RESPONSE_BODY:
                    reply.body += frame.body
                    taken = len(frame.body)
                case FrameType.BROKEN:
                    reply.broken = frame.header[2]
                    continue
                case FrameType.FINISHED:
                    _, _, reply.cpu_us, reply.outcome = frame.header
                    return reply
                case FrameType.NACK:
                    raise AssertionError(f"nack: {frame.header[2]}")
                case FrameType.CREDIT:
                    continue
                case other:
                    raise AssertionError(f"frame {other}")
            if grant and taken:
                self.send(FrameType.CREDIT, number, taken)

    async def get(self, target: str = "/", **options: Any) -> Reply:
        return await self.reply(self.request(target, **options))


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines if line)


@dataclass
class Handed:
    """What ACQUIRED said."""

    instance: str
    address: str
    credential: bytes
    tier: str
    phases_ms: dict[str, float]


class RefusedByInvokerError(Exception):
    """REFUSED."""


class InvokerLink(Peer):
    """A gateway's connection to the invoker."""

    _last = 0

    async def acquire(self, spec: DeploymentSpec, exclude: list[str] | None = None) -> Handed:
        self._last += 1
        self.send(FrameType.ACQUIRE, self._last, spec.to_dict(), exclude or [])
        frame = await self.next(self._last)
        if frame.type == FrameType.REFUSED:
            raise RefusedByInvokerError(frame.header[2], frame.header[3])
        return Handed(*frame.header[2:7])

    async def open(
        self, spec: DeploymentSpec, exclude: list[str] | None = None
    ) -> tuple[Handed, InstanceLink]:
        """Acquire an instance and dial it."""
        handed = await self.acquire(spec, exclude)
        link = await InstanceLink.dial(handed.address)
        assert isinstance(link, InstanceLink)
        link.hello(handed.credential)
        return handed, link

    async def death_of(self, instance: str) -> str:
        """Wait for DEAD; return the reason."""
        while True:
            frame = await self.next(0, FrameType.DEAD)
            if frame.header[2] == instance:
                return str(frame.header[3])

    async def survey(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the instances and the zygotes."""
        frame = await self._survey()
        return frame.header[2], frame.header[3]

    async def snapshots(self) -> list[dict[str, Any]]:
        """Return what is known of deployments' snapshots."""
        found: list[dict[str, Any]] = (await self._survey()).header[4]
        return found

    async def _survey(self) -> Frame:
        self._last += 1
        self.send(FrameType.SURVEY, self._last)
        return await self.next(self._last)

    async def keyring(
        self, app: str, operation: str, key_id: str = ""
    ) -> tuple[dict[str, Any], int]:
        """Return an app's keyring after an operation, and how many instances were ended for it."""
        self._last += 1
        self.send(FrameType.KEYRING, self._last, app, operation, key_id)
        frame = await self.next(self._last)
        if frame.type == FrameType.REFUSED:
            raise RefusedByInvokerError(frame.header[2], frame.header[3])
        return frame.header[2], frame.header[3]

    async def pid_of(self, instance: str) -> int:
        instances, _ = await self.survey()
        return int(next(each["pid"] for each in instances if each["instance"] == instance))


class Machine:
    """A home folder with bundles and layers, and an invoker process that serves it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.python = sys.executable
        self.run_dir = home / "run"
        (self.run_dir / "i").mkdir(parents=True, mode=0o700)
        self.socket_path = self.run_dir / "invoker.sock"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.socket_path))
        self.listener.listen()
        self.process: subprocess.Popen[bytes] | None = None
        self._bundles = 0

    def start(self, *, user: int | None = None, **environment: str) -> None:
        """Start the invoker, as another user if need be."""
        fd = self.listener.fileno()
        own = {
            "FLUVIAL_HOME": str(self.home),
            "FLUVIAL_RUN_DIR": str(self.run_dir),
            "FLUVIAL_INVOKER_FD": str(fd),
            "FLUVIAL_INVOKER_GRACE": "2",
            "SECRET_OF_THE_PLATFORM": "hunter2",
        }
        with (self.home / "invoker.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "fluvial_invoker"],
                env={**os.environ, **own, **environment},
                pass_fds=(fd,),
                stderr=log,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def restart(self, **environment: str) -> None:
        """End the invoker, and start another one."""
        self._end()
        self.start(user=None, **environment)

    def stop(self) -> None:
        self._end()
        self.listener.close()

    def _end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def bundle(self, **files: str) -> str:
        """Write a bundle; `main="…"` is main.py. Return its name."""
        self._bundles += 1
        digest = f"{self._bundles:064x}"
        folder = self.home / "bundles" / digest
        folder.mkdir(parents=True)
        for name, text in files.items():
            path = folder / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return digest

    def spec(
        self,
        main: str,
        *,
        entrypoint: str | None = "main:app",
        workflows: tuple[str, ...] = (),
        layer: str = "",
        app: str = "demo",
        environment: dict[str, str] | None = None,
        **settings: Any,
    ) -> DeploymentSpec:
        """Return a deployment of a one-file bundle."""
        digest = self.bundle(main=main)
        return DeploymentSpec(
            deployment=f"dpl_{self._bundles:024d}",
            app=app,
            bundle=digest,
            layer=layer,
            entrypoint=entrypoint,
            workflows=workflows,
            instance=InstanceSettings(**settings),
            environment=environment or {},
        )

    async def connect(self) -> InvokerLink:
        link = await InvokerLink.dial(str(self.socket_path))
        assert isinstance(link, InvokerLink)
        return link

    def app_log(self, app: str = "demo") -> str:
        found = segments(apps_folder(self.home) / app)
        return "".join(segment.path.read_text() for segment in found)

    async def logged(self, text: str, app: str = "demo") -> str:
        """Wait until the app's log holds `text`, and return the log.

        Answers and logs go separate ways, and nothing tells a test that a line has arrived.
        """
        async with asyncio.timeout(30):
            while text not in (log := self.app_log(app)):  # noqa: ASYNC110 - a file has no event
                await asyncio.sleep(0.01)
        return log

    @property
    def invoker_log(self) -> str:
        return (self.home / "invoker.log").read_text()


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not tmp_path: a socket's path may have 107 bytes at most.
    home = Path(tempfile.mkdtemp(prefix="fv"))
    machine = Machine(home)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()
        # pytest shows it when a test fails
        print(machine.invoker_log[-8192:], machine.app_log()[-8192:])  # noqa: T201
        shutil.rmtree(home)


async def end_of(pidfd: int) -> None:
    """Wait until a process has ended, and close its descriptor."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    async with asyncio.timeout(SECONDS):
        await ended.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


@contextlib.asynccontextmanager
async def linked(
    machine: Machine, spec: DeploymentSpec
) -> AsyncGenerator[tuple[InvokerLink, Handed, InstanceLink]]:
    """An instance of `spec`, with the connections to it and to the invoker."""
    invoker = await machine.connect()
    handed, link = await invoker.open(spec)
    try:
        yield invoker, handed, link
    finally:
        await link.close()
        await invoker.close()


@pytest.fixture
def serve(machine: Machine) -> Callable[[DeploymentSpec], Any]:
    """`async with serve(spec) as (invoker, handed, link)`."""
    return lambda spec: linked(machine, spec)
