"""Checks a run's event log against the ledger that its steps wrote outside the platform."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.installation import Platform

Events = list[dict[str, Any]]
ENDS = {"completed", "failed", "cancelled", "terminated"}


def start_run(platform: Platform, app: str, workflow: str, *arguments: object) -> str:
    """Start a run through the control API and return its id."""
    with platform.api() as api:
        reply = api.post(f"/v1/apps/{app}/workflows/{workflow}/runs", json=list(arguments))
        return str(reply.raise_for_status().json()["run_id"])


def wait_for_result(platform: Platform, run_id: str, seconds: float = 90.0) -> dict[str, Any]:
    """Wait for a run's end; return what the API says of it."""
    deadline = time.monotonic() + seconds
    with platform.api() as api:
        while True:
            reply = api.get(f"/v1/runs/{run_id}/result", params={"wait": 20}, timeout=40)
            found: dict[str, Any] = reply.raise_for_status().json()
            if found["status"] in ENDS:
                return found
            assert time.monotonic() < deadline, f"{run_id} is {found}: {platform.logs()}"


def wait_for_events(platform: Platform, run_id: str, count: int) -> None:
    """Follow a run until its log has `count` events."""
    headers = {"accept": "text/event-stream"}
    with (
        platform.api() as api,
        api.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as stream,
    ):
        seen = 0
        for line in stream.iter_lines():
            seen += line.startswith("id:")
            if seen >= count:
                return
    raise AssertionError(f"the run ended after {seen} of {count} events")


def read_events(platform: Platform, run_id: str) -> Events:
    """Return the whole event log, without payloads."""
    events: Events = []
    with platform.api() as api:
        while True:
            parameters = {"start": len(events), "limit": 1000}
            reply = api.get(f"/v1/runs/{run_id}/events", params=parameters)
            page: Events = reply.raise_for_status().json()["events"]
            if not page:
                return events
            events += page


def of_type(events: Events, kind: str) -> Events:
    """Return the events of one type."""
    return [event for event in events if event["type"] == kind]


def check_each_result_once(events: Events) -> None:
    """Each scheduled step has exactly one result, and nothing follows the end."""
    scheduled = [event["id"] for event in of_type(events, "step_scheduled")]
    results = Counter(event["id"] for event in of_type(events, "step_completed"))

    assert results == dict.fromkeys(scheduled, 1)
    assert events[-1]["type"] == "run_completed"
    assert len(of_type(events, "run_completed")) == 1


def check_ledger(events: Events, ledger: Path) -> None:
    """A body ran again only where the log says that an execution was cut off, and why."""
    lines = [line.split() for line in ledger.read_text().splitlines()]
    starts = Counter(name for verb, name in lines if verb == "start")
    ends = Counter(name for verb, name in lines if verb == "end")
    lost = of_type(events, "attempt_lost")
    steps = of_type(events, "step_completed")

    assert len(starts) == len(steps)
    assert starts.keys() == ends.keys()
    assert sum(starts.values()) - len(starts) <= len(lost)
    assert all(event["meta"]["reason"] for event in lost)
