"""Functions that were written for another server answer byte for byte as they do there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

import httpx
import pytest

from tests.e2e.differential import Request, compare_all, compare_at_once
from tests.e2e.guest_apps import BUNDLES, Guest, Visit, visit
from tests.e2e.installation import Platform

CLIENTS: Final = 100
EACH: Final = 3
FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
# Set when a bundle is unpacked.
UNPACKED: Final = frozenset({"last-modified"})
EVENT: Final = {"ce-id": "1", "ce-source": "/tests", "ce-specversion": "1.0", "ce-type": "good"}

STATIC: Final = [
    Request(method="GET", path="/main.py", varies=UNPACKED),
    Request(method="HEAD", path="/main.py", varies=UNPACKED),
    Request(method="GET", path="/pages?a=1"),
    Request(method="GET", path="/pages/"),
    Request(method="GET", path="/nothing?a=%20"),
    Request(method="POST", path="/form?x=1", body=b"a=1&b=2", headers=FORM),
    Request(method="POST", path="/large", body=b"0123456789abcdef" * 65_536),
    Request(method="PUT", path="/"),
    Request(method="PATCH", path="/"),
]
FUNCTIONS: Final = [
    Request(method="GET", path="/world"),
    Request(method="GET", path="/a%2Fb/%C3%A9"),
    Request(method="GET", path="/json?a=1&a=2&b="),
    Request(method="DELETE", path="/json"),
    Request(method="PUT", path="/tuple", body=b"x"),
    Request(method="POST", path="/form", body=b"a=1&b=2", headers=FORM),
    Request(method="HEAD", path="/tuple"),
    Request(method="OPTIONS", path="/x"),
    Request(method="GET", path="/favicon.ico"),
    Request(method="GET", path="/fail"),
]
EVENTS: Final = [
    Request(method="POST", path="/", body=b"data", headers=EVENT),
    Request(
        method="POST",
        path="/structured",
        body=b'{"specversion": "1.0", "type": "good", "source": "/t", "id": "1", "data": {"a": 1}}',
        headers={"content-type": "application/cloudevents+json"},
    ),
    Request(method="POST", path="/bad", body=b"data", headers=EVENT | {"ce-type": "bad"}),
    Request(method="GET", path="/"),
]
GUESTS: Final = [
    Guest(name="static", server="http.server", target="main:handler", requests=STATIC),
    Guest(name="functions", server="functions-framework", target="main:greet", requests=FUNCTIONS),
    Guest(name="events", server="functions-framework", target="main:on_event", requests=EVENTS),
]


@pytest.fixture(scope="module", params=GUESTS, ids=lambda guest: guest.name)
def visiting(request: pytest.FixtureRequest, running: Platform) -> Iterator[Visit]:
    """Each of them in both places."""
    with visit(running, request.param) as made:
        yield made


def test_answers_are_those_of_the_original(visiting: Visit) -> None:
    requests = visiting.guest.requests
    visiting.running.wait_for_zero(visiting.app)
    with visiting.app.client() as client:
        assert compare_all(requests, visiting.plain, client) == []


def test_answers_to_a_hundred_clients_are_those_of_the_original(visiting: Visit) -> None:
    requests = visiting.guest.requests
    make_client = visiting.app.client

    assert compare_at_once(requests, visiting.plain, make_client, CLIENTS, EACH) == []


def test_files_below_api_are_deployed_as_functions(running: Platform) -> None:
    app = running.deploy(BUNDLES / "files")
    with running.api() as api:
        deployment = api.get(f"/v1/deployments/{app.deployment}").raise_for_status().json()
    with app.client() as client:
        index = client.get("/api?a=1")
        user = client.get("/api/users/7?id=8")
        me = client.get("/api/users/me")
        shared = client.get("/api/_shared")

    assert deployment["entrypoint"] is None
    assert deployment["routes"] == ["/api", "/api/users/[id]", "/api/users/me"]
    assert index.json() == {"query": {"a": "1"}}
    assert user.json() == {"user": {"id": "7"}, "function": "files"}
    assert me.text == "me"
    assert shared.status_code == httpx.codes.NOT_FOUND


def test_a_declared_function_takes_events_without_the_framework(running: Platform) -> None:
    """Its CloudEvents are those of another major version than the framework's."""
    app = running.deploy(BUNDLES / "declared")
    with app.client() as client:
        answers = [
            client.post(asked.path, content=cast("bytes", asked.body), headers=dict(asked.headers))
            for asked in EVENTS[:3]
        ]
        nothing = client.post("/", content=b"data")

    assert [answer.status_code for answer in answers] == [200, 200, 500]
    assert answers[0].text == "OK"
    assert nothing.status_code == httpx.codes.BAD_REQUEST
    assert nothing.text.startswith("not a CloudEvent: ")
