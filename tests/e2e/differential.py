"""The differential runner: the same requests to an app on Fluvial and to the app on a plain server.

Whatever a client can see must be the same: status, headers and body. What may differ, and why:

    date, server             each server has its own
    server-timing, x-request-id, x-fluvial-*   what Fluvial adds
    connection, keep-alive   belong to the connection, not to the response
    transfer-encoding        framing; the body itself is compared
    content-length           only where one side alone has it: Fluvial states the length of a
                             response that came in one piece, a plain server may not know it

The methods in `allow` are compared as a set: some frameworks keep them in one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import httpx

TIMEOUT_SECONDS: Final = 30.0
NOT_COMPARED: Final = frozenset(
    {
        "connection",
        "date",
        "keep-alive",
        "server",
        "server-timing",
        "transfer-encoding",
        "x-request-id",
    }
)
# argv: the listening descriptor, the target's module, its attribute.
_WERKZEUG: Final = (
    "from werkzeug.serving import make_server\n"
    "make_server('127.0.0.1', 0, app, threaded=True, fd=int(sys.argv[1])).serve_forever()"
)
_SERVERS: Final = {
    "asgi": "import sys, uvicorn\n"
    "uvicorn.run(':'.join(sys.argv[2:]), fd=int(sys.argv[1]), log_level='warning')",
    "wsgi": "import importlib, sys\n"
    f"app = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])\n{_WERKZEUG}",
    "http.server": "import http.server, importlib, socket, sys\n"
    "handler = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])\n"
    "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler, False)\n"
    "server.socket = socket.socket(fileno=int(sys.argv[1]))\n"
    "server.serve_forever()",
    "functions-framework": "import sys, functions_framework\n"
    f"app = functions_framework.create_app(sys.argv[3], sys.argv[2] + '.py')\n{_WERKZEUG}",
}
Server = Literal["asgi", "wsgi", "http.server", "functions-framework"]

Body = bytes | tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request; a body in pieces is sent chunked."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Body | None = None
    same: Callable[[bytes], object] = bytes  # what of the body is compared
    at_once: bool = True  # False: the app itself mixes up requests that come at once
    varies: frozenset[str] = frozenset()  # headers that are different each time

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client saw."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where two answers part."""

    request: str
    what: str
    plain: object
    fluvial: object

    def __str__(self) -> str:
        return (
            f"{self.request}: {self.what}\n  plain:   {self.plain!r}\n  fluvial: {self.fluvial!r}"
        )


def ask(client: httpx.Client, request: Request) -> Answer:
    """Send one request and read the answer as it came over the wire, undecoded."""
    client.cookies.clear()
    content = iter(request.body) if isinstance(request.body, tuple) else request.body
    body, is_complete = bytearray(), True
    with client.stream(
        request.method, request.path, headers=dict(request.headers), content=content
    ) as response:
        try:
            for chunk in response.iter_raw():
                body += chunk
        except (httpx.RemoteProtocolError, httpx.ReadError):
            is_complete = False
    return Answer(
        status=response.status_code,
        headers=_compared(response.headers, NOT_COMPARED | request.varies),
        body=bytes(body),
        is_complete=is_complete,
    )


def compare(request: Request, plain: Answer, fluvial: Answer) -> Iterator[Difference]:
    """Yield every difference that a client can see."""
    if not plain.is_complete:  # how much of it arrived before the connection broke is chance
        plain, fluvial = replace(plain, body=b""), replace(fluvial, body=b"")
    pairs: list[tuple[str, object, object]] = [
        ("status", plain.status, fluvial.status),
        ("is complete", plain.is_complete, fluvial.is_complete),
        ("body", request.same(plain.body), request.same(fluvial.body)),
    ]
    ours, theirs = _headers_of(fluvial, plain), _headers_of(plain, fluvial)
    pairs += [("headers", theirs, ours)]
    for what, expected, found in pairs:
        if expected != found:
            yield Difference(request=str(request), what=what, plain=expected, fluvial=found)


def compare_all(
    requests: Iterable[Request], plain: Mapping[str, Answer], client: httpx.Client
) -> list[Difference]:
    """Send `requests` one after the other and compare with what the plain server answered."""
    return [
        difference
        for request in requests
        for difference in compare(request, plain[str(request)], ask(client, request))
    ]


def compare_at_once(
    requests: list[Request],
    plain: Mapping[str, Answer],
    make_client: Callable[[], httpx.Client],
    clients: int,
    each: int,
) -> list[Difference]:
    """Let many clients send `each` of the requests at once, each beginning somewhere else."""

    mixed = [request for request in requests if request.at_once]

    def one(number: int) -> list[Difference]:
        start = number % len(mixed)
        with make_client() as client:
            return compare_all((mixed[start:] + mixed[:start])[:each], plain, client)

    with ThreadPoolExecutor(clients) as threads:
        return [found for differences in threads.map(one, range(clients)) for found in differences]


def client_of(port: int, host: str) -> httpx.Client:
    """Return a client whose requests look the same to an app behind a proxy and without one.

    It sends no `connection`, which no proxy may pass on, and the `x-forwarded-host` that one adds.
    """
    timeout = httpx.Timeout(TIMEOUT_SECONDS)
    # Nothing here is TLS; reading the trusted certificates takes longer than the requests.
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=timeout, verify=False)
    del client.headers["connection"]
    client.headers["host"] = client.headers["x-forwarded-host"] = host
    return client


def answers(requests: Iterable[Request], client: httpx.Client) -> dict[str, Answer]:
    """Return what a server answers to each request."""
    return {str(request): ask(client, request) for request in requests}


@contextmanager
def plain_server(
    kind: Server,
    folder: Path,
    layer: Path,
    host: str,
    *,
    target: str = "main:app",
    environment: Mapping[str, str] | None = None,
) -> Generator[Callable[[], httpx.Client]]:
    """Serve the app of `folder` with a plain server and the same dependencies.

    Yields a function that makes clients, which send the same Host header as those of Fluvial.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVERS[kind], str(listener.fileno()), *target.split(":")],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join((str(folder), str(layer)))}
            | dict(environment or {}),
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        port = listener.getsockname()[1]
    try:
        yield lambda: client_of(port, host)
    finally:
        process.terminate()
        process.wait(TIMEOUT_SECONDS)


def _compared(headers: httpx.Headers, skipped: frozenset[str]) -> tuple[tuple[str, str], ...]:
    raw = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers.raw]
    kept = [
        (name, ", ".join(sorted(value.split(", "))) if name == "allow" else value)
        for name, value in raw
        if name not in skipped and not name.startswith("x-fluvial-")
    ]
    return tuple(sorted(kept))


def _headers_of(answer: Answer, other: Answer) -> tuple[tuple[str, str], ...]:
    names = {name for name, _ in other.headers}
    return tuple(pair for pair in answer.headers if pair[0] != "content-length" or pair[0] in names)
