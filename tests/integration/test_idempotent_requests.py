"""Steps that send requests: a server sees the same keys in every attempt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import requests

from fluvial import (
    InvalidRequestError,
    NotInWorkflowError,
    idempotent,
    metadata,
    next_idempotency_key,
    step,
    workflow,
)
from fluvial.registry import registry
from fluvial_queue.memory import MemoryStore
from tests.integration.in_process import Application

SECONDS = 10.0


@dataclass
class Server:
    """A server that notes the method, path and key of each request."""

    url: str
    seen: list[tuple[str, str, str | None]] = field(
        default_factory=list[tuple[str, str, str | None]]
    )

    @property
    def keys(self) -> list[str | None]:
        return [key for _, _, key in self.seen]


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            noted.seen.append((self.command, self.path, self.headers.get("Idempotency-Key")))
            moved = self.path == "/moved"
            self.send_response(307 if moved else 200)
            if moved:
                self.send_header("Location", "/here")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the base looks for this name

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 - the base's name

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        noted = Server(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield noted
        listening.shutdown()
        thread.join(SECONDS)


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    steps, workflows = dict(registry.steps), dict(registry.workflows)
    yield
    registry.steps.clear()
    registry.steps.update(steps)
    registry.workflows.clear()
    registry.workflows.update(workflows)


def run_to_the_end(main: Any) -> str:
    """Run a workflow durably; return its run id."""

    async def body() -> str:
        store = MemoryStore()
        await store.open()
        application = Application(store)
        await application.dispatcher.start()
        try:
            run_id = await application.start(main)
            assert await application.finish(run_id) == "completed"
        finally:
            await application.dispatcher.stop(1.0)
            await store.close()
        return run_id

    return asyncio.run(body())


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    return session


def send_twice_with_httpx(url: str) -> None:
    with idempotent(idempotent(httpx.Client(timeout=SECONDS, trust_env=False))) as client:
        client.get(url)
        client.post(f"{url}/one")
        client.post(f"{url}/two")


def send_twice_with_requests(url: str) -> None:
    with idempotent(idempotent(_session())) as session:
        session.get(url, timeout=SECONDS)
        session.post(f"{url}/one", timeout=SECONDS)
        session.post(f"{url}/two", timeout=SECONDS)


@pytest.mark.parametrize("send", [send_twice_with_httpx, send_twice_with_requests])
def test_requests_of_a_sync_step_have_keys_that_all_attempts_share(
    server: Server, send: Callable[[str], None]
) -> None:
    @step(backoff=0)
    def send_all() -> None:
        send(server.url)
        if metadata().attempt == 1:
            raise ConnectionError

    @workflow
    async def main() -> None:
        await send_all()

    run_id = run_to_the_end(main)

    assert server.keys == [None, f"{run_id}-1-1", f"{run_id}-1-2"] * 2
    assert [path for _, path, _ in server.seen] == ["/", "/one", "/two"] * 2


def test_requests_of_async_steps_have_keys_of_their_own(server: Server) -> None:
    async def body() -> None:
        async with idempotent(httpx.AsyncClient(timeout=SECONDS, trust_env=False)) as client:
            await client.get(server.url)
            await client.delete(f"{server.url}/unknown")  # answered 501, not noted
            await client.post(server.url)

    @step
    async def send() -> None:
        await body()

    @workflow
    async def main() -> None:
        await send()
        await send()

    run_id = run_to_the_end(main)

    assert server.keys == [None, f"{run_id}-1-2", None, f"{run_id}-2-2"]


def test_a_redirected_request_keeps_its_key(server: Server) -> None:
    @step
    def send() -> None:
        with idempotent(httpx.Client(follow_redirects=True, trust_env=False)) as client:
            client.post(f"{server.url}/moved")
        with idempotent(_session()) as session:
            session.post(f"{server.url}/moved", timeout=SECONDS)

    @workflow
    async def main() -> None:
        await send()

    run_id = run_to_the_end(main)

    assert server.seen == [
        ("POST", "/moved", f"{run_id}-1-1"),
        ("POST", "/here", f"{run_id}-1-1"),
        ("POST", "/moved", f"{run_id}-1-2"),
        ("POST", "/here", f"{run_id}-1-2"),
    ]


def test_a_key_that_the_caller_chose_stays(server: Server) -> None:
    @step
    def send() -> None:
        with idempotent(_session()) as session:
            session.post(server.url, headers={"idempotency-key": "mine"}, timeout=SECONDS)

    @workflow
    async def main() -> None:
        await send()

    run_to_the_end(main)

    assert server.keys == ["mine"]


def test_outside_a_step_requests_have_no_key(server: Server) -> None:
    send_twice_with_httpx(server.url)
    send_twice_with_requests(server.url)

    assert server.keys == [None] * 6
    with pytest.raises(NotInWorkflowError):
        next_idempotency_key()


def test_other_clients_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidRequestError, match="next_idempotency_key"):
        idempotent(object())
