"""Calls of instances: what they may do, and that nothing in a call is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.errors import (
    FluvialError,
    HookNotFoundError,
    InvalidRequestError,
    RunClosedError,
    RunNotFoundError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.ids import continued_run_id, keyed_run_id, new_run_id
from fluvial.invocations import unpack_events
from fluvial_gateway.link_calls import LinkContext
from fluvial_gateway.problems import WorkflowNotFoundError
from fluvial_queue.contract import RunStatus, StartRun
from fluvial_queue.messages import MessageKind
from tests.integration.control.world import World

Control = Callable[..., None]


async def _instance(world: World, app: str = "shop") -> LinkContext:
    deployed = await world.deploy(app.encode(), name=app)
    deployment = deployed["deployment"]["deployment"]
    return LinkContext(instance="ins_1", deployment=deployment, app=app)


async def _call(
    world: World, who: LinkContext, operation: str, body: bytes = b"", **arguments: Any
) -> tuple[dict[str, Any], bytes]:
    code, result, answer = await world.calls.handle(who, operation, arguments, body)
    assert code == "ok", result
    return result, answer


async def _started(world: World, who: LinkContext, **arguments: Any) -> str:
    defaults = {"workflow": "fulfil", "run_id": new_run_id(4), "key": None, "fingerprint": b""}
    result, _ = await _call(world, who, "start", b"sealed", **{**defaults, **arguments})
    return str(result["run_id"])


def test_start_is_pinned_to_the_callers_deployment(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        await world.deploy(b"newer")
        run = await world.runs.get(await _started(world, who))

        assert (run.deployment, run.app, run.input) == (who.deployment, "shop", b"sealed")

    control(scenario)


def test_keyed_start_must_name_the_run_of_its_key(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        right = keyed_run_id("shop", "fulfil", "k", 4)
        assert await _started(world, who, run_id=right, key="k") == right

        with pytest.raises(InvalidRequestError, match="not the run of the key"):
            await _started(world, who, key="k")

    control(scenario)


def test_start_by_key_from_outside_and_inside_is_one_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await world.start([1], **{"idempotency-key": "k"})
        arguments = {"workflow": "fulfil", "run_id": run_id, "key": "k", "fingerprint": b"f" * 32}
        result, _ = await _call(world, who, "start", b"sealed", **arguments)

        assert result == {"run_id": run_id, "outcome": "duplicate"}

    control(scenario)


def test_id_of_another_apps_run_is_no_start(control: Control) -> None:
    async def scenario(world: World) -> None:
        mine, theirs = await _instance(world), await _instance(world, "other")
        run_id = await _started(world, theirs)

        with pytest.raises(InvalidRequestError, match="is taken"):
            await _started(world, mine, run_id=run_id)

    control(scenario)


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("run", {}),
        ("events", {"start": 0, "wait_ms": 0}),
        ("result", {"wait_ms": 0}),
        ("cancel", {"reason": ""}),
        ("terminate", {}),
        ("resume", {"token": "t", "resume_id": "r"}),
        ("state", {}),
        ("tag", {"tags": {"a": "b"}}),
        ("pause", {"reason": ""}),
        ("resume_run", {"deployment": ""}),
        ("wake", {}),
        ("retry", {}),
    ],
)
def test_runs_of_another_app_do_not_exist(
    control: Control, operation: str, arguments: dict[str, Any]
) -> None:
    async def scenario(world: World) -> None:
        mine, theirs = await _instance(world), await _instance(world, "other")
        run_id = await _started(world, theirs)
        await _call(world, theirs, "run", run_id=run_id)

        with pytest.raises(RunNotFoundError):
            await _call(world, mine, operation, run_id=run_id, **arguments)
        assert [m.kind for _, m in await world.messages(run_id)] == [MessageKind.START]

    control(scenario)


def test_run_events_and_result(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await _started(world, who)
        assert (await _call(world, who, "result", run_id=run_id)) == ({"status": "pending"}, b"")
        waiting = asyncio.create_task(
            _call(world, who, "events", run_id=run_id, start=1, wait_ms=20_000)
        )
        await asyncio.sleep(0)
        await world.finish(run_id)
        found, body = await waiting
        ended, last = await _call(world, who, "result", run_id=run_id, wait_ms=1000)
        described, _ = await _call(world, who, "run", run_id=run_id)

        assert found == {"status": "completed", "next": 2}
        assert unpack_events(body) == [last]
        assert ended == {"status": "completed"}
        assert decode_event(last).payload == b'"done"'
        assert described["status"] == "completed"
        assert described["events"] == 2

    control(scenario)


def test_hook_is_found_and_resumed(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await _started(world, who)
        await world.store.claim_token("shop", "t", run_id)
        started = Event(EventType.RUN_STARTED, 1, 0, b"", {})
        await world.record(run_id, started, status=RunStatus.RUNNING, hooks=("t",))
        found, _ = await _call(world, who, "token", token="t")
        arguments = {"run_id": run_id, "token": "t", "resume_id": "r"}
        first, _ = await _call(world, who, "resume", b"sealed", **arguments)
        again, _ = await _call(world, who, "resume", b"sealed", **arguments)

        assert found == {"run_id": run_id}
        assert (first, again) == ({"outcome": "accepted"}, {"outcome": "duplicate"})
        ((_, message),) = await world.messages(run_id)
        assert message.payload == b"sealed"

    control(scenario)


def test_runs_are_listed_within_the_app(control: Control) -> None:
    async def scenario(world: World) -> None:
        mine, theirs = await _instance(world), await _instance(world, "other")
        runs = [await _started(world, mine, tags={"n": str(n % 2)}) for n in range(4)]
        await _started(world, theirs, tags={"n": "1"})
        await world.finish(runs[0])
        asked: dict[str, Any] = {
            "limit": 2,
            "statuses": ["pending"],
            "tags": {},
            "workflow": "fulfil",
        }
        first, _ = await _call(world, mine, "runs", **asked)
        rest, _ = await _call(world, mine, "runs", **asked, cursor=first["cursor"])
        tagged, _ = await _call(world, mine, "runs", tags={"n": "1"}, limit=100)
        of_parent, _ = await _call(world, mine, "runs", parent=runs[0], limit=100)

        listed = [run["run_id"] for page in (first, rest) for run in page["runs"]]
        assert sorted(listed) == sorted(runs[1:])
        by_id = {run["run_id"]: run for run in tagged["runs"]}
        assert by_id.keys() == {runs[1], runs[3]}
        assert of_parent == {"runs": [], "cursor": ""}
        assert by_id[runs[3]] == {
            "run_id": runs[3],
            "status": "pending",
            "workflow": "fulfil",
            "tags": {"n": "1"},
        }

    control(scenario)


@pytest.mark.parametrize(
    "arguments",
    [
        {"statuses": ["gone"]},
        {"statuses": 1},
        {"statuses": [["x"]]},
        {"tags": {"a": None}},
        {"tags": "x"},
        {"limit": -1},
        {"cursor": "x" * 2000},
        {"cursor": "?"},
        {"parent": 1},
    ],
)
def test_a_list_that_makes_no_sense_is_refused(control: Control, arguments: dict[str, Any]) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        with pytest.raises(InvalidRequestError):
            await _call(world, who, "runs", **arguments)

    control(scenario)


def test_a_start_has_options(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        await world.deploy(b"newer")
        production = (await world.catalogue.app("shop")).production
        run_id = await _started(
            world,
            who,
            delay_ms=60_000,
            deadline_ms=120_000,
            retention_ms=5_000,
            tags={"team": "a"},
            priority=7,
            deployment="latest",
        )
        run = await world.runs.get(run_id)

        assert run.deployment == production
        assert (run.tags, run.retention_ms) == ({"team": "a"}, 5_000)
        assert run.meta["priority"] == 7
        assert run.meta["deadline_at"] - run.meta["start_at"] == 60_000
        assert await world.messages(run_id) == []

    control(scenario)


def test_a_singleton_has_one_live_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        first = await _started(world, who, singleton="s")
        arguments = {"workflow": "fulfil", "singleton": "s"}

        async def again(on_conflict: str) -> tuple[str, dict[str, Any], str]:
            run_id = new_run_id(4)
            given = {**arguments, "run_id": run_id, "on_conflict": on_conflict}
            code, result, _ = await world.calls.handle(who, "start", given, b"sealed")
            return code, result, run_id

        code, result, refused = await again("reject")
        assert (code, result["run_id"]) == ("singleton_alive", first)
        with pytest.raises(RunNotFoundError):
            await world.runs.get(refused)
        _, result, _ = await again("existing")
        assert result == {"run_id": first, "outcome": "existing"}
        _, result, third = await again("replace")
        assert result == {"run_id": third, "outcome": "accepted"}
        kinds = [message.kind for _, message in await world.messages(first)]
        assert kinds == [MessageKind.START, MessageKind.CANCEL]

        await world.finish(third)
        _, result, fourth = await again("reject")
        assert result == {"run_id": fourth, "outcome": "accepted"}

    control(scenario)


def test_a_run_shows_its_state_and_takes_tags(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await _started(world, who, tags={"a": "1"})
        assert await _call(world, who, "state", run_id=run_id) == ({"status": "pending"}, b"")
        started = Event(EventType.RUN_STARTED, 1, 0, b"", {})
        await world.record(run_id, started, status=RunStatus.RUNNING)
        published = Event(EventType.STATE_PUBLISHED, 1, 0, b"sealed", {"number": 1})
        await _call(world, who, "tag", run_id=run_id, tags={"a": None, "b": "2"})
        await world.record(run_id, published, status=RunStatus.RUNNING, state_at=1)
        _, body = await _call(world, who, "state", run_id=run_id)

        assert decode_event(body) == published
        described, _ = await _call(world, who, "run", run_id=run_id)
        assert described["tags"] == {"a": "1"}  # the change is a message to the run's owner

    control(scenario)


def test_what_is_meant_for_a_continued_run_reaches_the_one_in_its_place(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await _started(world, who)
        following = continued_run_id(run_id)
        await world.store.start(
            StartRun(
                run_id=following, app="shop", workflow="fulfil", deployment="d", input=b"sealed"
            )
        )
        ended = Event(EventType.RUN_CONTINUED, 1, 0, b"", {"run": following})
        await world.record(run_id, ended, status=RunStatus.CONTINUED)
        await _call(world, who, "cancel", run_id=run_id, reason="enough")

        kinds = [message.kind for _, message in await world.messages(following)]
        assert MessageKind.CANCEL in kinds

    control(scenario)


def test_ended_run_is_closed(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        run_id = await _started(world, who)
        await world.finish(run_id)

        with pytest.raises(RunClosedError):
            await _call(world, who, "cancel", run_id=run_id)

    control(scenario)


@pytest.mark.parametrize(
    ("operation", "arguments", "error"),
    [
        ("drop", {}, InvalidRequestError),
        ("start", {}, InvalidRequestError),
        ("start", {"workflow": 1, "run_id": new_run_id(4)}, InvalidRequestError),
        ("start", {"workflow": "nope", "run_id": new_run_id(4)}, WorkflowNotFoundError),
        ("start", {"workflow": "fulfil", "run_id": "run_1"}, InvalidRequestError),
        ("start", {"workflow": "fulfil", "run_id": f"run_zz{'0' * 24}"}, InvalidRequestError),
        ("run", {"run_id": b"run"}, InvalidRequestError),
        ("run", {"run_id": new_run_id(4)}, RunNotFoundError),
        ("events", {"run_id": new_run_id(4), "start": -1}, InvalidRequestError),
        ("events", {"run_id": new_run_id(4), "start": True}, InvalidRequestError),
        ("token", {"token": "x" * 600}, InvalidRequestError),
        ("token", {"token": "x"}, HookNotFoundError),
        ("cancel", {"run_id": new_run_id(4), "reason": "x" * 501}, InvalidRequestError),
        *(
            ("start", {"workflow": "fulfil", "run_id": new_run_id(4), **wrong}, InvalidRequestError)
            for wrong in (
                {"delay_ms": -1},
                {"deadline_ms": "1h"},
                {"retention_ms": 10**15},
                {"tags": {"a": 1}},
                {"tags": {"a": None}},
                {"tags": {str(n): "x" for n in range(65)}},
                {"priority": 101},
                {"singleton": "x" * 513},
                {"singleton": "x", "on_conflict": "wait"},
            )
        ),
    ],
)
def test_bad_call_is_refused(
    control: Control, operation: str, arguments: dict[str, Any], error: type[FluvialError]
) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)

        with pytest.raises(error):
            await _call(world, who, operation, **arguments)

    control(scenario)


def test_input_above_the_limit_is_refused_by_its_code(control: Control) -> None:
    async def scenario(world: World) -> None:
        who = await _instance(world)
        arguments = {"workflow": "fulfil", "run_id": new_run_id(4)}
        large = bytes(16 * 1024 * 1024 + 1)
        code, _, _ = await world.calls.handle(who, "start", arguments, large)

        assert code == "too_large"

    control(scenario)
