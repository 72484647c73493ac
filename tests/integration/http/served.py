"""The data plane in this process, and real invoker, zygote and instance processes behind it."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fluvial.manifest import DeploymentSpec
from fluvial_gateway.hosts import HostTable, Routes
from fluvial_gateway.http_front import HttpFront
from fluvial_gateway.http_limits import HttpLimits
from fluvial_gateway.http_protocol import HttpConnection
from fluvial_gateway.invoker_client import InvokerClient
from fluvial_gateway.pool_contract import PoolLimits
from fluvial_gateway.router import Router
from tests.integration.gateway.gateway_peers import Client, EchoCalls, Recorder
from tests.integration.invoker.conftest import Machine

LIMITS = HttpLimits(resolution_seconds=0.01, hang_up_seconds=0.05)
PATIENCE_SECONDS = 30.0  # a test that waits longer has failed


@dataclass
class Served:
    """One deployment, at `http://127.0.0.1:<port>`."""

    port: int
    front: HttpFront
    router: Router
    recorder: Recorder
    machine: Machine
    server: asyncio.AbstractServer

    def url(self, path: str, scheme: str = "ws") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def get(self, path: str) -> bytes:
        """Return the body of a GET."""
        client = await self.client()
        try:
            client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
            return (await client.response()).body
        finally:
            await client.end()


@contextlib.asynccontextmanager
async def served(
    machine: Machine, spec: DeploymentSpec, *, limits: HttpLimits | None = None
) -> AsyncGenerator[Served]:
    """Serve a deployment."""

    async def find(deployment: str) -> DeploymentSpec | None:
        return spec if deployment == spec.deployment else None

    recorder = Recorder()
    invoker = InvokerClient(str(machine.socket_path))
    router = Router(
        spec=find,
        invoker=invoker,
        calls=EchoCalls(),
        pool_observer=recorder,
        http_observer=recorder,
        gateway="gw_test",
        partitions=4,
        app_url=lambda app: f"http://{app}.localhost",
        limits=PoolLimits(resolution_seconds=0.01),
    )
    routes = Routes(
        production={spec.app: spec.deployment},
        deployments={spec.deployment: spec.app},
        default_app=spec.app,
    )
    front = HttpFront(router, HostTable(routes), limits or LIMITS)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpConnection(front), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Served(port, front, router, recorder, machine, server)
    finally:
        server.close()
        await front.drain(0.0)
        await router.close()
        invoker.close()
        await asyncio.sleep(0)


def open_machine() -> Iterator[Machine]:
    """A running invoker, for a whole module of tests: each has a deployment of its own."""
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


shared_machine = pytest.fixture(scope="module")(open_machine)
