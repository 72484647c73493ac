"""The monitor counts what it sees, and its own endpoints behave as their names say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

Load = Callable[[str], ModuleType]


def _get(bundle: ModuleType, path: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(bundle.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            return await client.get(path)

    return asyncio.run(ask())


def _probe(bundle: ModuleType, url: str, answer: Callable[[httpx.Request], httpx.Response]) -> Any:
    return asyncio.run(bundle.probe(url, httpx.MockTransport(answer)))


@pytest.mark.parametrize(("path", "status"), [("/ok", 200), ("/slow", 200), ("/down", 500)])
def test_own_endpoints(load_bundle: Load, path: str, status: int) -> None:
    assert _get(load_bundle("monitor"), path).status_code == status


def test_flaky_fails_two_times_of_three(load_bundle: Load) -> None:
    monitor = load_bundle("monitor")

    statuses = [_get(monitor, "/flaky").status_code for _ in range(6)]

    assert statuses == [503, 503, 200, 503, 503, 200]


def test_probe_reports_a_bad_answer_as_a_finding(load_bundle: Load) -> None:
    check = _probe(load_bundle("monitor"), "http://a/", lambda _: httpx.Response(503))

    assert (check.ok, check.status, check.error) == (False, 503, "HTTP 503 Service Unavailable")


def test_probe_reports_no_answer_as_a_finding(load_bundle: Load) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    check = _probe(load_bundle("monitor"), "http://a/", refuse)

    assert (check.ok, check.status, check.error) == (False, None, "ConnectError: refused")


def test_names_below_localhost_are_loopback(load_bundle: Load) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    check = _probe(load_bundle("monitor"), "http://monitor.localhost:8080/ok", answer)

    assert check.url == "http://monitor.localhost:8080/ok"
    assert str(asked[0].url) == "http://127.0.0.1:8080/ok"
    assert asked[0].headers["host"] == "monitor.localhost:8080"


def test_summary_counts_by_endpoint(load_bundle: Load) -> None:
    monitor = load_bundle("monitor")
    good = monitor.Check(url="a", ok=True, status=200, latency_ms=5.0)
    bad = monitor.Check(url="a", ok=False, status=500, latency_ms=9.0, error="HTTP 500")
    other = monitor.Check(url="b", ok=True, status=200, latency_ms=1.0)

    first, second = monitor.summarise([good, other, bad, good])

    assert (first.url, first.checks, first.failures, first.uptime) == ("a", 3, 1, 0.6667)
    assert (first.last_status, first.last_error, first.worst_latency_ms) == (200, "", 9.0)
    assert (second.url, second.checks, second.uptime) == ("b", 1, 1.0)


def test_step_outside_a_workflow_returns_its_finding(load_bundle: Load) -> None:
    check = asyncio.run(load_bundle("monitor").check("no such scheme://"))

    assert not check.ok
    assert check.status is None
