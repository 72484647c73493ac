"""Unmodified applications behave on Fluvial as they do on a plain server."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx
import pytest

from tests.e2e.differential import (
    Answer,
    Request,
    answers,
    compare_all,
    compare_at_once,
    plain_server,
)
from tests.e2e.installation import App, Platform, wait_until

APPS: Final = Path(__file__).parent / "apps"
CLIENTS: Final = 100
EACH: Final = 5
MEGABYTE: Final = b"0123456789abcdef" * 65_536
JSON: Final = {"content-type": "application/json"}


def _unpacked(body: bytes) -> object:
    return json.loads(gzip.decompress(body))  # the packed form holds the time


HTTPBIN: Final = [
    Request(method="GET", path="/get?a=1&a=2&b=%C3%A9"),
    Request(method="GET", path="/headers", headers={"x-mixed-Case": "kept"}),
    Request(method="POST", path="/post", body=b'{"a": [1, 2]}', headers=JSON),
    Request(
        method="POST",
        path="/post?form",
        body=b"name=ann&name=bob",
        headers={"content-type": "application/x-www-form-urlencoded"},
    ),
    Request(method="PUT", path="/put", body=b"\x00\xff\xfe raw"),
    Request(method="DELETE", path="/delete"),
    Request(method="HEAD", path="/get"),
    Request(method="OPTIONS", path="/get"),
    Request(method="GET", path="/status/418"),
    Request(method="GET", path="/status/204"),
    Request(method="GET", path="/status/500"),
    Request(method="GET", path="/nothing/here"),
    Request(method="GET", path="/stream/20"),
    Request(method="GET", path="/drip?duration=0.3&numbytes=6&delay=0"),
    Request(method="GET", path="/gzip", same=_unpacked),
    Request(method="GET", path="/redirect/3"),
    Request(method="GET", path="/absolute-redirect/2"),
    Request(method="GET", path="/basic-auth/u/p"),
    Request(method="GET", path="/basic-auth/u/p?in", headers={"authorization": "Basic dTpw"}),
    Request(method="GET", path="/bytes/100000?seed=1", at_once=False),
    Request(method="GET", path="/range/2048", headers={"range": "bytes=100-199"}),
    Request(method="GET", path="/cookies/set?a=1&b=2"),
    Request(method="GET", path="/cookies", headers={"cookie": "a=1; b=2"}),
    Request(method="GET", path="/response-headers?x-one=1&x-one=2"),
    Request(method="GET", path="/anything/a%2Fb/c%20d?q=%2B"),
    Request(method="GET", path="/encoding/utf8"),
    Request(method="GET", path="/image/png"),
]
SERVICE: Final = [
    Request(method="GET", path="/"),
    Request(method="GET", path="/openapi.json"),
    Request(method="GET", path="/scope?a=1&b=%20"),
    Request(method="GET", path="/items/a%2Fb/tail"),
    Request(
        method="PUT", path="/items/7?q=x", body=b'{"name": "lamp", "price": 4.5}', headers=JSON
    ),
    Request(method="PUT", path="/items/x", body=b'{"name": 1}', headers=JSON),
    Request(method="DELETE", path="/items/7"),
    Request(method="GET", path="/lines/500"),
    Request(method="GET", path="/lines/0"),
    Request(method="GET", path="/broken-stream"),
    Request(method="POST", path="/digest", body=MEGABYTE * 4),
    Request(method="POST", path="/digest?chunked", body=(MEGABYTE, b"x", MEGABYTE)),
    Request(method="POST", path="/digest?empty", body=b""),
    Request(method="POST", path="/echo", body=MEGABYTE, headers={"content-type": "a/b"}),
    Request(method="POST", path="/echo?chunked", body=(b"one ", b"two"), headers={"x-y": "z"}),
    Request(method="GET", path="/cookies", headers={"cookie": "seen=before"}),
    Request(method="GET", path="/away"),
    Request(method="GET", path="/not-modified"),
    Request(method="GET", path="/teapot"),
    Request(method="GET", path="/crash"),
    Request(method="GET", path="/unicode/%E2%9C%93%C3%A9"),
    Request(method="HEAD", path="/"),
    Request(method="OPTIONS", path="/"),
    Request(method="GET", path="/nowhere"),
]


@dataclass(frozen=True, slots=True)
class Pair:
    """An app on Fluvial, and what it answers on a plain server."""

    app: App
    running: Platform
    requests: list[Request]
    plain: dict[str, Answer]


def _pair(
    running: Platform, name: str, kind: Literal["asgi", "wsgi"], requests: list[Request]
) -> Pair:
    folder = APPS / name
    app = running.deploy(folder)
    plain = plain_server(kind, folder, running.layer(app), app.host)
    with plain as make_client, make_client() as client:
        return Pair(app, running, requests, answers(requests, client))


@pytest.fixture(scope="module", params=["httpbin", "service"])
def pair(request: pytest.FixtureRequest, running: Platform) -> Iterator[Pair]:
    """Each application once, deployed, with its answers on a plain server."""
    if request.param == "httpbin":
        yield _pair(running, "httpbin", "wsgi", HTTPBIN)
    else:
        yield _pair(running, "service", "asgi", SERVICE)


def test_warm_answers_are_the_same(pair: Pair) -> None:
    with pair.app.client() as client:
        client.get("/")

        assert compare_all(pair.requests, pair.plain, client) == []


def test_cold_answers_are_the_same(pair: Pair) -> None:
    for request in pair.requests[::4]:
        pair.running.wait_for_zero(pair.app)
        with pair.app.client() as client:
            assert compare_all([request], pair.plain, client) == []


def test_answers_to_many_clients_at_once_are_the_same(pair: Pair) -> None:
    assert compare_at_once(pair.requests, pair.plain, pair.app.client, CLIENTS, EACH) == []


def test_work_after_the_response_is_done(running: Platform) -> None:
    app = running.deploy(APPS / "service")
    with app.client() as client:
        answer = client.post("/jobs/later")

        assert answer.json() == {"accepted": "later"}
        wait_until(lambda: client.get("/jobs").json() == ["later"], 5.0, "the job is done")


def test_httpbin_accepts_chunked_uploads(running: Platform) -> None:
    """Its own servers refuse them; here the body arrives whole, whatever its framing was."""
    app = running.deploy(APPS / "httpbin")
    pieces = iter((b"one ", b"two"))

    with app.client() as client:
        answer = client.post("/post", content=pieces, headers={"content-type": "text/plain"})

    assert answer.status_code == httpx.codes.OK
    assert answer.json()["data"] == "one two"
