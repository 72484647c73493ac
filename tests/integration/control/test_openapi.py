"""The OpenAPI document: valid, as its copy in `docs` has it; what it describes does not break."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import Case, GenerationMode

from fluvial_gateway.control.openapi import document
from fluvial_gateway.control.operations import Operation, Upload
from fluvial_gateway.control_server import ControlServer
from tests.integration.control.world import World, open_world
from tests.openapi import COPY, served_document, written

EXAMPLES = 3  # of each operation, valid ones and as many that are not
START_SECONDS = 30.0


def test_the_copy_in_docs_is_what_a_gateway_serves() -> None:
    assert COPY.read_text("utf-8") == written(served_document()), (
        "docs/openapi.json is not what the routes say: `make openapi` writes it anew"
    )


def test_the_document_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(served_document()).validate()


def test_input_of_any_kind_never_gives_a_5xx(tmp_path: Path) -> None:
    broken: list[str] = []
    with _served(tmp_path) as served, requests.Session() as session:
        headers = {"authorization": f"Bearer {served.token}"}

        def send(case: Case[Any], known: bool) -> None:
            if known:
                case.path_parameters.update(_known_values(case, served))
            response = case.call(base_url=served.url, session=session, headers=headers, timeout=30)
            if response.status_code >= 500:
                broken.append(f"{case.as_curl_command()} → {response.status_code} {response.text}")

        for strategy in _strategies(served.operations):
            _play(strategy, send)

    assert broken == []


@dataclass(frozen=True, slots=True)
class _Served:
    """A control API on a socket, with an app and a run that has ended."""

    url: str
    token: str
    operations: list[Operation]
    deployment: str
    run_id: str


@contextmanager
def _served(folder: Path) -> Generator[_Served]:
    """Serve the application of a world from another thread: what makes the requests blocks."""
    ready = threading.Event()
    found: list[tuple[_Served, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with open_world(folder) as world:
            stop = asyncio.Event()
            listener = socket.create_server(("127.0.0.1", 0))
            server = ControlServer(world.app, world.waits, listener=listener)
            serving = asyncio.create_task(server.serve())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            found.append((await _described(world, url), asyncio.get_running_loop(), stop))
            await server.started.wait()
            ready.set()
            await stop.wait()
            await server.drain(1.0)
            await serving

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(START_SECONDS)
        yield found[0][0]
    finally:
        for _, loop, stop in found:
            loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _described(world: World, url: str) -> _Served:
    deployed = await world.deploy()
    run_id = await world.start()
    await world.finish(run_id)
    deployment = deployed["deployment"]["deployment"]
    return _Served(url, world.token, world.operations, deployment, run_id)


def _known_values(case: Case[Any], served: _Served) -> dict[str, str]:
    """Return values of a request's path parameters that exist."""
    an_id = served.deployment if "/deployments/" in case.path else served.run_id
    known = {"app": "shop", "workflow": "fulfil", "id": an_id}
    return {name: value for name, value in known.items() if name in case.path_parameters}


def _strategies(operations: list[Operation]) -> Iterator[Any]:
    """Yield how requests of each operation are made: as the document has them, and otherwise."""
    plain = [each for each in operations if not isinstance(each.body, Upload)]
    schema: Any = schemathesis.openapi.from_dict(document(plain, version="0.0.0"))
    for found in schema.get_all_operations():
        operation = found.ok()
        yield operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        if operation.body or list(operation.iter_parameters()):
            yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def _play(strategy: Any, send: Any) -> None:
    checks = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=(
            HealthCheck.too_slow,
            HealthCheck.filter_too_much,
            HealthCheck.data_too_large,
        ),
    )
    checks(given(case=strategy, known=st.booleans())(send))()
