"""Reading runs: events as a page and as a stream, results, and who may see data."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial.invocations import Answer
from fluvial_gateway.auth import Scope
from fluvial_gateway.invocations import Answered, Lost, Outcome, Unavailable
from fluvial_queue.contract import RunStatus
from fluvial_queue.messages import Message, MessageKind
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
FOLLOW = {"accept": "text/event-stream"}


async def _finished(world: World, result: str = '"done"') -> str:
    await world.deploy()
    run_id = await world.start()
    await world.finish(run_id, result)
    return run_id


def _sent(text: str) -> list[tuple[int, dict[str, Any]]]:
    """The server-sent events of a stream: (id, data)."""
    blocks = [block.split("\n") for block in text.split("\n\n") if block.startswith("id: ")]
    return [(int(one[4:]), json.loads(two.removeprefix("data: "))) for one, two in blocks]


def test_events_are_shown_without_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        page = (await world.get(f"/v1/runs/{run_id}/events")).json()

        assert page["next"] == 2
        assert page["status"] == "completed"
        first, last = page["events"]
        assert (first["position"], first["type"], first["bytes"]) == (0, "run_started", 6)
        assert last["at"] == "1970-01-01T00:00:02.000Z"
        assert "data" not in first
        assert world.invocations.requests == []

    control(scenario)


def test_events_with_data_are_revealed_and_audited(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        page = (await world.get(f"/v1/runs/{run_id}/events", params={"data": "true"})).json()

        assert [event["data"] for event in page["events"]] == [["in"], "done"]
        (audited,) = [record for record in caplog.records if record.message == "data revealed"]
        assert audited.__dict__["run_id"] == run_id
        assert audited.__dict__["token_name"] == "test"

    control(scenario)


def test_a_paused_run_says_why(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        reason = "diverged: now asks\n  - recorded: STEP_SCHEDULED a\n  + now:      RUN_COMPLETED"
        started = Event(EventType.RUN_STARTED, 1000, 0, b'["in"]', {})
        await world.record(run_id, started, status=RunStatus.PAUSED, reason=reason)
        shown = (await world.get(f"/v1/runs/{run_id}")).json()
        assert shown["reason"] == reason

        await world.store.send(run_id, Message(MessageKind.RESUME, run_id).encode())
        await world.record(run_id, Event(EventType.RUN_RESUMED, 4000), status=RunStatus.RUNNING)
        assert (await world.get(f"/v1/runs/{run_id}")).json()["reason"] is None

    control(scenario)


def test_data_needs_its_own_scope(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        reader = await world.tokens.create("reader", [Scope.RUNS_READ])
        async with client_of(world, reader) as client:
            for path in (f"/v1/runs/{run_id}", f"/v1/runs/{run_id}/events"):
                refused = await client.get(path, params={"data": "true"})
                assert refused.status_code == 403
            withheld = await client.get(f"/v1/runs/{run_id}/result")

        assert withheld.json()["withheld"] == "needs the scope data:read"
        assert "result" not in withheld.json()
        assert world.invocations.requests == []

    control(scenario)


def test_events_are_paged(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        one = (await world.get(f"/v1/runs/{run_id}/events", params={"limit": 1})).json()
        rest = (await world.get(f"/v1/runs/{run_id}/events", params={"start": one["next"]})).json()

        assert [event["position"] for event in one["events"] + rest["events"]] == [0, 1]
        assert rest["next"] == 2

    control(scenario)


def test_follower_sees_what_happens_until_the_end(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        following = asyncio.create_task(world.get(f"/v1/runs/{run_id}/events", headers=FOLLOW))
        await asyncio.sleep(0)
        await world.finish(run_id)
        response = await following

        assert response.headers["content-type"].startswith("text/event-stream")
        assert [position for position, _ in _sent(response.text)] == [0, 1]
        assert _sent(response.text)[1][1]["type"] == "run_completed"

    control(scenario)


def test_follower_resumes_behind_what_it_has_seen(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        path = f"/v1/runs/{run_id}/events"
        resumed = await world.get(path, headers={**FOLLOW, "last-event-id": "0"})
        over = await world.get(path, headers={**FOLLOW, "last-event-id": "1"})

        assert [position for position, _ in _sent(resumed.text)] == [1]
        assert over.status_code == 204

    control(scenario)


def test_follower_of_a_quiet_run_hears_that_it_is_still_connected(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        following = asyncio.create_task(world.get(f"/v1/runs/{run_id}/events", headers=FOLLOW))
        await asyncio.wait([following], timeout=0.2)  # four keep-alive intervals of this world
        world.waits.close()
        response = await following

        assert response.text.count(": still here") >= 2

    control(scenario)


def test_result_of_a_completed_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world, '{"total": 3}')
        answer = (await world.get(f"/v1/runs/{run_id}/result")).json()

        assert answer == {"run_id": run_id, "status": "completed", "result": {"total": 3}}

    control(scenario)


def test_result_that_is_no_json_is_told_as_text(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world, "Decimal('1.5')")

        assert (await world.get(f"/v1/runs/{run_id}/result")).json()["result"] == "Decimal('1.5')"

    control(scenario)


@pytest.mark.parametrize(
    ("event", "status", "error"),
    [
        (Event(EventType.RUN_FAILED, 1, 0, b"ValueError: x"), RunStatus.FAILED, "ValueError: x"),
        (
            Event(EventType.RUN_TERMINATED, 1, meta={"reason": "by hand"}),
            RunStatus.TERMINATED,
            "by hand",
        ),
        (Event(EventType.RUN_CANCELLED, 1), RunStatus.CANCELLED, "cancelled"),
    ],
)
def test_result_of_a_run_that_did_not_complete(
    control: Control, event: Event, status: RunStatus, error: str
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        await world.record(run_id, event, status=status)
        answer = (await world.get(f"/v1/runs/{run_id}/result")).json()

        assert answer == {"run_id": run_id, "status": status.value, "error": error}

    control(scenario)


def test_result_waits_for_the_end(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        waiting = asyncio.create_task(world.get(f"/v1/runs/{run_id}/result", params={"wait": 20}))
        await asyncio.sleep(0)
        await world.finish(run_id)

        assert (await waiting).json()["result"] == "done"

    control(scenario)


def test_waiting_ends_when_the_gateway_stops(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        path = f"/v1/runs/{run_id}/result"
        waiting = asyncio.create_task(world.get(path, params={"wait": 300}))
        await asyncio.wait([waiting], timeout=0.05)
        world.waits.close()

        assert (await waiting).json()["status"] == "pending"
        assert (await world.get(path, params={"wait": 1})).status_code == 503

    control(scenario)


def test_run_with_data_shows_input_and_result(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        run = (await world.get(f"/v1/runs/{run_id}", params={"data": "true"})).json()

        assert (run["input"], run["result"]) == (["in"], "done")

    control(scenario)


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (Lost("ins_1", "signal:9"), 502, "not_revealed"),
        (Unavailable("capacity", "no room", True), 503, "unavailable"),
        (Unavailable("import_failed", "broken", False), 502, "not_revealed"),
        (Answered("ins_1", Answer(outcome="ok"), 1, []), 502, "not_revealed"),
        (Answered("ins_1", Answer(outcome="cancelled"), 1, []), 502, "not_revealed"),
    ],
)
def test_deployment_that_does_not_reveal_is_a_problem(
    control: Control, outcome: Outcome, status: int, code: str
) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        world.invocations.outcome = outcome
        response = await world.get(f"/v1/runs/{run_id}/result")

        assert (response.status_code, response.json()["code"]) == (status, code)

    control(scenario)


def test_reveal_is_cancelled_with_its_request(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _finished(world)
        world.invocations.is_silent = True
        asking = asyncio.create_task(world.get(f"/v1/runs/{run_id}/result"))
        await asyncio.wait([asking], timeout=0.05)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

        assert world.invocations.handle.cancelled == "client_gone"

    control(scenario)
