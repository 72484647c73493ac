"""Bulk operations: which runs they take, what they say of each, and how they go on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial_gateway import bulk
from fluvial_gateway.bulk import Bulk, BulkResult, BulkTally, BulkWish
from fluvial_gateway.steering import Wish
from fluvial_queue.contract import RunQuery, RunStatus, StoreUnavailableError
from fluvial_queue.messages import MessageKind
from tests.integration.control.world import World, lines

Control = Callable[..., None]
STARTED = Event(EventType.RUN_STARTED, 1, 0, b"", {})


async def _ask(world: World, action: str, chosen: Any, **more: Any) -> list[dict[str, Any]]:
    headers = {"idempotency-key": more.pop("key")} if "key" in more else {}
    body = {"action": action, "filter": chosen, **more}
    response = await world.post("/v1/runs/bulk", json=body, headers=headers)
    assert response.status_code == 200, response.text
    return lines(response)


def _runs(answer: list[dict[str, Any]], outcome: str) -> list[str]:
    runs = [line["run"] for line in answer if "run" in line]
    return [run["run_id"] for run in runs if run["outcome"] == outcome]


async def _kinds(world: World, run_id: str) -> list[MessageKind]:
    return [message.kind for _, message in await world.messages(run_id)][1:]


async def _some(world: World) -> dict[str, str]:
    """Return a run of each kind by its name."""
    await world.deploy()
    runs = {name: await world.start({"tags": {"n": name}}) for name in ("pending", "ended")}
    runs["paused"] = await world.start({"tags": {"n": "paused", "team": "a"}})
    await world.finish(runs["ended"])
    await world.record(runs["paused"], STARTED, status=RunStatus.PAUSED, reason="poison")
    return runs


@pytest.mark.parametrize(
    ("action", "more", "kind", "expected"),
    [
        ("cancel", {"reason": "enough"}, MessageKind.CANCEL, {"pending", "paused"}),
        ("terminate", {}, MessageKind.TERMINATE, {"pending", "paused"}),
        ("pause", {}, MessageKind.PAUSE, {"pending"}),
        ("resume", {}, MessageKind.RESUME, {"paused"}),
        ("wake", {}, MessageKind.WAKE, {"pending", "paused"}),
        ("retry", {}, MessageKind.RETRY, {"paused"}),
        ("tag", {"tags": {"a": "b", "n": None}}, MessageKind.TAG, {"pending", "paused"}),
    ],
)
def test_an_action_reaches_the_runs_for_which_it_makes_sense(
    control: Control, action: str, more: Any, kind: MessageKind, expected: set[str]
) -> None:
    async def scenario(world: World) -> None:
        runs = await _some(world)
        answer = await _ask(world, action, {"app": "shop"}, **more)

        assert set(_runs(answer, "done")) == {runs[name] for name in expected}
        summary = answer[-1]["summary"]
        assert (summary["matched"], summary["done"]) == (len(expected), len(expected))
        assert (summary["is_complete"], summary["dry_run"]) == (True, False)
        for name in expected:
            message = (await world.messages(runs[name]))[-1][1]
            assert (message.kind, message.meta["by"]) == (kind, "test")

    control(scenario)


def test_runs_that_have_ended_are_deleted(control: Control) -> None:
    async def scenario(world: World) -> None:
        runs = await _some(world)
        answer = await _ask(world, "delete", {"app": "shop"})

        assert _runs(answer, "done") == [runs["ended"]]
        left = (await world.get("/v1/runs")).json()["runs"]
        assert {run["run_id"] for run in left} == {runs["pending"], runs["paused"]}

    control(scenario)


def test_a_dry_run_asks_nothing_and_says_what_would_be(control: Control) -> None:
    async def scenario(world: World) -> None:
        runs = await _some(world)
        status = [each.value for each in RunStatus]
        answer = await _ask(world, "resume", {"status": status}, dry_run=True)

        assert _runs(answer, "would") == [runs["paused"]]
        skipped = {line["run"]["run_id"]: line["run"]["reason"] for line in answer if "run" in line}
        assert skipped[runs["pending"]] == "run_not_paused"
        assert skipped[runs["ended"]] == "run_closed"
        summary = answer[-1]["summary"]
        assert summary["skipped"] == {"run_not_paused": 1, "run_closed": 1}
        assert (summary["matched"], summary["done"], summary["dry_run"]) == (3, 1, True)
        assert await _kinds(world, runs["pending"]) == []
        assert await world.messages(runs["paused"]) == []
        deleted = await _ask(world, "delete", {"app": "shop"}, dry_run=True)
        assert _runs(deleted, "would") == [runs["ended"]]
        assert (await world.runs.get(runs["ended"])).status is RunStatus.COMPLETED

    control(scenario)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"tags": {"team": "a"}}, {"paused"}),
        ({"tags": {"n": "pending"}}, {"pending"}),
        ({"status": ["pending"]}, {"pending"}),
        ({"app": "other"}, set[str]()),
        ({"workflow": "fulfil"}, {"pending", "paused"}),
        ({"parent": "run_x"}, set[str]()),
        ({"since": "1h"}, {"pending", "paused"}),
        ({"until": "1h"}, set[str]()),
        ({"since": "2020-01-01T00:00:00Z", "until": "2020-01-02T00:00:00Z"}, set[str]()),
    ],
)
def test_a_filter_chooses(control: Control, chosen: Any, expected: set[str]) -> None:
    async def scenario(world: World) -> None:
        runs = await _some(world)
        answer = await _ask(world, "cancel", chosen, dry_run=True)

        assert set(_runs(answer, "would")) == {runs[name] for name in expected}

    control(scenario)


def test_it_goes_on_from_a_cursor(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_PAGE", 2)

    async def scenario(world: World) -> None:
        await world.deploy()
        runs = [await world.start() for _ in range(5)]
        first = await _ask(world, "cancel", {"app": "shop"}, limit=3)
        cursor = first[-1]["summary"]["cursor"]
        rest = await _ask(world, "cancel", {"app": "shop"}, cursor=cursor)

        assert [line["progress"]["matched"] for line in first if "progress" in line] == [2, 3]
        assert not first[-1]["summary"]["is_complete"]
        assert rest[-1]["summary"]["is_complete"]
        assert sorted(_runs(first, "done") + _runs(rest, "done")) == sorted(runs)
        for run_id in runs:
            assert await _kinds(world, run_id) == [MessageKind.CANCEL]

    control(scenario)


def test_nothing_more_is_asked_once_nobody_listens(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_AT_ONCE", 1)

    async def scenario(world: World) -> None:
        await world.deploy()
        runs = [await world.start() for _ in range(3)]
        asked = BulkWish(wish=Wish(action="wake"), query=RunQuery(app="shop"))
        results = Bulk(world.runs).carry_out(asked, BulkTally())
        first = await anext(results)
        await results.aclose()

        assert isinstance(first, BulkResult)
        woken = [run_id for run_id in runs if await _kinds(world, run_id)]
        assert woken == [first.run.run_id]

    control(scenario)


def test_the_same_key_asks_nothing_of_a_run_twice(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        for key in ("k", "k", "l"):
            await _ask(world, "wake", {"app": "shop"}, key=key)

        assert await _kinds(world, run_id) == [MessageKind.WAKE] * 2

    control(scenario)


def test_what_a_run_refuses_is_skipped_with_the_reason(control: Control) -> None:
    async def scenario(world: World) -> None:
        runs = await _some(world)
        full = await world.start({"tags": {str(n): "" for n in range(64)}})
        await world.post("/v1/apps/shop/keys/freeze")
        tagged = await _ask(world, "tag", {"app": "shop"}, tags={"one": "more"})
        resumed = await _ask(world, "resume", {"app": "shop"})

        assert _runs(tagged, "skipped") == [full]
        assert tagged[-1]["summary"]["skipped"] == {"invalid_request": 1}
        (skipped,) = [line["run"] for line in resumed if "run" in line]
        assert (skipped["run_id"], skipped["reason"]) == (runs["paused"], "keys_frozen")
        assert skipped["detail"]

    control(scenario)


def test_a_store_that_is_away_ends_it_with_a_problem(
    control: Control, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start()
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        world.store.lost_answers = 10
        answer = await _ask(world, "cancel", {"app": "shop"})

        assert answer[-1]["problem"]["status"] == 503
        assert caplog.records[-1].__dict__["outcome"] != "ok"
        world.store.failure = StoreUnavailableError("away")
        response = await world.post(
            "/v1/runs/bulk", json={"action": "wake", "filter": {"app": "x"}}
        )
        assert response.status_code == 503

    control(scenario)


def test_one_audit_line_says_how_many(control: Control, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        await _some(world)
        caplog.set_level(logging.INFO, "fluvial_gateway.audit")
        chosen = {"app": "shop", "tags": {"team": "a"}, "status": ["paused", "failed"]}
        await _ask(world, "cancel", chosen)

        (line,) = [r.__dict__ for r in caplog.records if r.name == "fluvial_gateway.audit"]
        assert (line["operation"], line["outcome"]) == ("bulkRuns", "ok")
        assert line["about"] == {
            "action": "cancel",
            "dry_run": False,
            "app": "shop",
            "statuses": ["failed", "paused"],
            "tags": ["team"],
            "matched": 1,
            "done": 1,
            "skipped": 0,
        }

    control(scenario)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"action": "cancel"}, "the member 'filter' is missing"),
        ({"action": "cancel", "filter": {}}, "body.filter: has 0 members"),
        ({"action": "burn", "filter": {"app": "shop"}}, "'burn' is not one of cancel, terminate"),
        ({"action": "cancel", "filter": {"status": ["gone"]}}, "body.filter.status[0]"),
        ({"action": "cancel", "filter": {"since": "soon"}}, "body.filter.since: 'soon' is no time"),
        ({"action": "cancel", "filter": {"app": "shop"}, "limit": 0}, "body.limit: is 0"),
        ({"action": "tag", "filter": {"app": "shop"}}, "the member 'tags' is missing"),
        (
            {"action": "wake", "filter": {"app": "shop"}, "reason": "x"},
            "body.reason: is for cancel and terminate and pause, not for wake",
        ),
        ({"action": "wake", "filter": {"app": "shop"}, "cursor": "?"}, "cursor"),
    ],
)
def test_a_wrong_request_is_refused(control: Control, body: Any, detail: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        response = await world.post("/v1/runs/bulk", json=body)
        problem = response.json().get("problem", response.json())

        assert detail in problem["detail"]
        assert problem["status"] == 400

    control(scenario)
