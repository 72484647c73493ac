"""The examples do on the platform what their pages say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.e2e.installation import App, Platform, wait_until

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
LEDGER: Final = Path("/tmp/fluvial-orders.jsonl")  # an instance has no TMPDIR
SETTLE_SECONDS: Final = 20.0
TOUR_SECONDS: Final = 150.0


@pytest.fixture(scope="module")
def orders_app(running: Platform) -> App:
    """The orders app, deployed."""
    return running.deploy(EXAMPLES / "orders")


@pytest.fixture
def order(running: Platform, orders_app: App) -> _Order:
    """An order of its own for each test."""
    return _Order(running, orders_app)


def test_approved_order_is_shipped(order: _Order) -> None:
    order.place()
    order.decide(approved=True)

    assert order.receipt()["outcome"] == "shipped"
    assert order.effects() == {"charge": 1, "reserve": 1, "ship": 1}


def test_placing_twice_is_one_order(order: _Order) -> None:

    first, second, other = order.place(), order.place(), order.place(cents=1)
    order.decide(approved=True)

    assert first.json()["run"] == second.json()["run"]
    assert other.status_code == httpx.codes.CONFLICT
    assert order.receipt()["outcome"] == "shipped"
    assert order.effects() == {"charge": 1, "reserve": 1, "ship": 1}


def test_refused_order_is_undone(order: _Order) -> None:
    order.place()
    order.decide(approved=False)

    receipt = order.receipt()
    assert (receipt["outcome"], receipt["detail"]) == ("refused", "by ann")
    assert order.effects() == {"charge": 1, "reserve": 1, "refund": 1, "release": 1}


def test_order_without_a_decision_expires(order: _Order) -> None:
    order.place(approve_within_seconds=0.3)

    assert order.receipt()["outcome"] == "expired"
    assert order.effects() == {"charge": 1, "reserve": 1, "refund": 1, "release": 1}
    assert order.decide(approved=True, wait=False).status_code == httpx.codes.NOT_FOUND


def test_declined_card_undoes_the_reservation(order: _Order) -> None:
    order.place(cents=200_000)

    receipt = order.receipt()
    assert receipt["outcome"] == "failed"
    assert "card declined" in receipt["detail"]
    assert order.effects() == {"reserve": 1, "release": 1}


def test_cancelled_order_is_undone_before_it_ends(order: _Order) -> None:
    order.place()
    order.wait_until_it_waits()
    order.post("cancellation", {})

    wait_until(lambda: order.state()["status"] == "cancelled", SETTLE_SECONDS, "cancelled")
    assert order.effects() == {"charge": 1, "reserve": 1, "refund": 1, "release": 1}


def test_monitor_reports_on_its_own_endpoints(running: Platform) -> None:
    app = running.deploy(EXAMPLES / "monitor")
    with app.client() as client:
        watch = client.post("/watches", content=b'{"rounds": 2, "interval": 0.3}').json()
        wait_until(
            lambda: client.get(watch["report"]).json()["status"] == "completed",
            SETTLE_SECONDS,
            "the watch is over",
        )
        report = client.get(watch["report"]).json()

    found = {row["url"].rpartition("/")[2]: row for row in report["endpoints"]}
    assert {name: row["checks"] for name, row in found.items()} == dict.fromkeys(found, 2)
    assert (found["ok"]["uptime"], found["ok"]["last_status"]) == (1.0, 200)
    assert (found["down"]["uptime"], found["down"]["last_status"]) == (0.0, 500)
    assert found["slow"]["last_latency_ms"] >= 400
    assert report["retries"] >= 4  # twice for each look at /down


def test_tour_runs_to_its_end() -> None:
    """What `make run` shows, without a terminal."""
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "tour.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "exactly one result" in done.stdout
    assert "no instance exists" in done.stdout


class _Order:
    """One order of its own, seen from outside."""

    def __init__(self, running: Platform, app: App) -> None:
        self.id = uuid.uuid4().hex
        self._running = running
        self._app = app

    def place(self, **details: Any) -> httpx.Response:
        return self.post("", {"item": "lamp", "cents": 4900, **details})

    def decide(self, *, approved: bool, wait: bool = True) -> httpx.Response:
        if wait:
            self.wait_until_it_waits()
        return self.post("approval", {"approved": approved, "by": "ann"})

    def wait_until_it_waits(self) -> None:
        """Wait until the run has opened its hook: an earlier decision would be a 404."""
        path = f"/v1/runs/{self.state()['run']}/events"
        with self._running.api() as api:
            wait_until(lambda: "hook_opened" in api.get(path).text, SETTLE_SECONDS, "it waits")

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        with self._app.client() as client:
            return client.post(f"/orders/{self.id}/{path}".rstrip("/"), json=body)

    def state(self) -> dict[str, Any]:
        with self._app.client() as client:
            found: dict[str, Any] = client.get(f"/orders/{self.id}").raise_for_status().json()
        return found

    def receipt(self) -> dict[str, Any]:
        wait_until(lambda: self.state()["status"] == "completed", SETTLE_SECONDS, "it is settled")
        receipt: dict[str, Any] = self.state()["receipt"]
        return receipt

    def effects(self) -> Counter[str]:
        """Count the effects that the ledger holds for this order."""
        lines = LEDGER.read_text().splitlines() if LEDGER.exists() else []
        entries = [json.loads(line) for line in lines]
        return Counter(entry["effect"] for entry in entries if entry["order"] == self.id)
