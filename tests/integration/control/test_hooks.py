"""Open hooks as the control API shows them, and talking to live runs through it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from fluvial.events import Event, EventType
from fluvial.hook_tokens import named_token, secret_token
from fluvial.ids import continued_run_id
from fluvial_gateway.auth import Scope
from fluvial_queue.contract import RunStatus, StartRun
from fluvial_queue.messages import MessageKind
from tests.integration.control.world import World, client_of

Control = Callable[..., None]
RUNNING = RunStatus.RUNNING
SCHEMA = {
    "type": "object",
    "required": ["column"],
    "properties": {"column": {"type": "integer"}},
    "additionalProperties": False,
}


async def _playing(world: World, **meta: Any) -> str:
    """A run that has a hook named `move` open, with id 1."""
    await world.deploy()
    run_id = await world.start()
    await world.record(run_id, Event(EventType.RUN_STARTED, 1000, 0, b"[]", {}), status=RUNNING)
    await _open(world, run_id, **meta)
    return run_id


async def _open(world: World, run_id: str, **meta: Any) -> None:
    token = named_token(run_id, "move")
    about = {"token": token, "chosen": False, "name": "move", **meta}
    opening = Event(EventType.HOOK_OPENED, 2000, 1, b'{"metadata":{"board":"7x6"}}', about)
    await world.record(run_id, opening, status=RUNNING, hooks=(token,))


async def _answered(
    world: World, run_id: str, resume: str, payload: str, *, ok: bool = True, why: str = ""
) -> None:
    meta = {"token": named_token(run_id, "move"), "resume": resume, "ok": ok, "why": why}
    event = Event(EventType.HOOK_ANSWERED, 3000, 1, payload.encode(), meta)
    await world.record(run_id, event, status=RUNNING)


async def _ask(
    world: World, run_id: str, value: Any = None, *, resume: str = "r", **query: Any
) -> httpx.Response:
    return await world.post(
        f"/v1/runs/{run_id}/hooks/move/ask",
        json={"column": 3} if value is None else value,
        params=query,
        headers={"x-fluvial-resume-id": resume},
    )


async def _until_sent(world: World) -> None:
    """Return when a payload is on its way to a run."""
    await asyncio.wait_for(world.store.sent.wait(), 20)


def test_a_run_shows_what_it_waits_for(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world, timeout_ms=60_000, schema=SCHEMA)
        shown = (await world.get(f"/v1/runs/{run_id}/hooks")).json()
        with_data = await world.get(f"/v1/runs/{run_id}/hooks", params={"data": "true"})

        (hook,) = shown["hooks"]
        assert hook == {
            "id": 1,
            "token": named_token(run_id, "move"),
            "name": "move",
            "webhook": False,
            "opened_at": "1970-01-01T00:00:02.000Z",
            "closes_at": "1970-01-01T00:01:02.000Z",
            "takes": SCHEMA,
        }
        assert (shown["run_id"], shown["workflow"], shown["next"]) == (run_id, "fulfil", None)
        (revealed,) = with_data.json()["hooks"]
        assert json.dumps(revealed["metadata"]).count("7x6") == 1

    control(scenario)


def test_a_webhook_shows_as_one_and_takes_no_values(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world, webhook={"app_url": "", "respond": True, "signed": False})
        (hook,) = (await world.get(f"/v1/runs/{run_id}/hooks")).json()["hooks"]
        assert hook["webhook"] is True
        for way in ("1", "move", "1/ask"):
            sent = await world.post(f"/v1/runs/{run_id}/hooks/{way}", json={"column": 3})
            assert (sent.status_code, sent.json()["code"]) == (422, "payload_invalid")

    control(scenario)


def test_a_made_token_shows_to_those_who_may_read_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        token = secret_token(run_id, bytes(15))
        started = Event(EventType.RUN_STARTED, 1000, 0, b"[]", {})
        await world.record(run_id, started, status=RUNNING)
        opening = Event(EventType.HOOK_OPENED, 2000, 1, b"", {"token": token, "chosen": False})
        await world.record(run_id, opening, status=RUNNING, hooks=(token,))
        for path in ("/v1/hooks", f"/v1/runs/{run_id}/hooks", f"/v1/runs/{run_id}/events"):
            shown = (await world.get(path)).text
            assert run_id.removeprefix("run_") in shown
            assert token not in shown
        for part in ("hooks", "events"):
            path = f"/v1/runs/{run_id}/{part}"
            assert token in (await world.get(path, params={"data": "true"})).text

    control(scenario)


def test_metadata_needs_its_own_scope(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        reader = await world.tokens.create("reader", [Scope.RUNS_READ])
        async with client_of(world, reader) as client:
            path = f"/v1/runs/{run_id}/hooks"
            assert (await client.get(path)).status_code == 200
            assert (await client.get(path, params={"data": "true"})).status_code == 403

    control(scenario)


def test_hooks_are_shown_page_by_page(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        opening = Event(EventType.HOOK_OPENED, 2000, 1, b"", {"token": "a", "chosen": True})
        await world.record(run_id, opening, status=RUNNING, hooks=("a", "b", "c"))

        seen: list[str] = []
        start: int | None = 0
        while start is not None:
            query = {"limit": 2, "start": start}
            page = (await world.get(f"/v1/runs/{run_id}/hooks", params=query)).json()
            seen += [hook["token"] for hook in page["hooks"]]
            start = page["next"]
        assert seen == ["a", "b", "c"]

    control(scenario)


def test_live_runs_with_hooks_are_listed(control: Control) -> None:
    async def scenario(world: World) -> None:
        playing = await _playing(world)
        await world.start()  # waits for nothing
        await world.finish(await world.start())
        seen: list[str] = []
        cursor: str | None = None
        while True:
            query = {"app": "shop", "limit": "1"} | ({"cursor": cursor} if cursor else {})
            page = (await world.get("/v1/hooks", params=query)).json()
            seen += [run["run_id"] for run in page["runs"]]
            cursor = page["cursor"]
            if cursor is None:
                break

        assert seen == [playing]
        assert (await world.get("/v1/hooks", params={"app": "other"})).json()["runs"] == []

    control(scenario)


def test_what_an_instance_wrote_of_its_hook_cannot_break_the_list(control: Control) -> None:
    async def scenario(world: World) -> None:
        hostile = {b"x": b"\xff", "deep": [[b""]]}
        run_id = await _playing(world, timeout_ms=2**62, schema=hostile, name=b"\xff")
        (hook,) = (await world.get(f"/v1/runs/{run_id}/hooks")).json()["hooks"]

        assert hook["closes_at"] is None
        assert (await world.get("/v1/hooks")).status_code == 200

    control(scenario)


def test_a_payload_that_does_not_fit_is_told_and_goes_nowhere(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world, schema=SCHEMA)
        token = named_token(run_id, "move")
        for path in (f"/v1/hooks/shop/{token}", f"/v1/runs/{run_id}/hooks/move"):
            refused = await world.post(path, json={"column": "three"})

            assert refused.status_code == 422
            problem = refused.json()
            assert (problem["code"], problem["path"]) == ("payload_invalid", "payload.column")
            assert problem["detail"] == "payload.column: must be integer, got string"
        kinds = [message.kind for _, message in await world.messages(run_id)]
        assert MessageKind.HOOK not in kinds

    control(scenario)


@pytest.mark.parametrize("hook", ["move", "1"])
def test_a_value_is_sent_once_by_name_or_id(control: Control, hook: str) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        for outcome in ("accepted", "duplicate"):
            sent = await world.post(
                f"/v1/runs/{run_id}/hooks/{hook}",
                json={"column": 3},
                headers={"x-fluvial-resume-id": "one"},
            )
            assert sent.status_code == 202
            assert sent.json() == {"run_id": run_id, "outcome": outcome}
        (message,) = [m for _, m in await world.messages(run_id) if m.kind is MessageKind.HOOK]
        token = named_token(run_id, "move")

        assert (message.id, message.meta) == (1, {"token": token, "resume": "one"})
        assert world.opened(run_id, "hook", message.payload, token) == b'j{"column":3}'

    control(scenario)


@pytest.mark.parametrize("hook", ["other", "2"])
def test_a_hook_that_does_not_open_is_not_found(control: Control, hook: str) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        refused = await world.post(f"/v1/runs/{run_id}/hooks/{hook}?wait=0", json=1)

        assert (refused.status_code, refused.json()["code"]) == (404, "hook_not_found")
        assert run_id in refused.json()["detail"]

    control(scenario)


def test_a_run_may_be_talked_to_before_it_has_opened_the_hook(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        sending = asyncio.create_task(
            world.post(f"/v1/runs/{run_id}/hooks/move?wait=60", json={"column": 1})
        )
        await asyncio.sleep(0)
        started = Event(EventType.RUN_STARTED, 1000, 0, b"[]", {})
        await world.record(run_id, started, status=RUNNING)
        await _open(world, run_id)

        assert (await sending).json() == {"run_id": run_id, "outcome": "accepted"}

    control(scenario)


def test_what_is_said_to_a_continued_run_waits_for_the_one_in_its_place(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        following = continued_run_id(run_id)
        ended = Event(EventType.RUN_CONTINUED, 1, 0, b"", {"run": following})
        await world.record(run_id, ended, status=RunStatus.CONTINUED)
        path = f"/v1/runs/{run_id}/hooks/move"
        assert (await world.post(f"{path}?wait=0", json=1)).json()["code"] == "hook_not_found"

        sending = asyncio.create_task(world.post(f"{path}?wait=60", json=1))
        await asyncio.sleep(0)
        await world.store.start(
            StartRun(
                run_id=following, app="shop", workflow="fulfil", deployment="d", input=b"sealed"
            )
        )
        started = Event(EventType.RUN_STARTED, 1000, 0, b"[]", {})
        await world.record(following, started, status=RUNNING)
        await _open(world, following)

        assert (await sending).json() == {"run_id": following, "outcome": "accepted"}

    control(scenario)


def test_an_ended_or_unknown_run_is_told_as_such(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        await world.finish(run_id)
        closed = await _ask(world, run_id)
        unknown = await _ask(world, run_id[:-4] + "0000")

        assert (closed.status_code, closed.json()["code"]) == (409, "run_closed")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "run_not_found")

    control(scenario)


def test_an_answer_is_waited_for_and_told_again(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        asking = asyncio.create_task(_ask(world, run_id))
        await _until_sent(world)
        ((_, message),) = await world.messages(run_id)
        assert message.meta["ask"] is True
        await _answered(world, run_id, "another", "1")
        await _answered(world, run_id, "r", '{"board":[3]}')

        answered = {"run_id": run_id, "resume_id": "r", "answer": {"board": [3]}}
        assert (await asking).json() == answered
        assert (await _ask(world, run_id)).json() == answered  # the same question

    control(scenario)


def test_an_answer_is_withheld_from_those_who_may_not_read_data(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        await _ask(world, run_id, timeout=1)
        await _answered(world, run_id, "r", "1")
        writer = await world.tokens.create("writer", [Scope.RUNS_WRITE])
        async with client_of(world, writer) as client:
            asked = await client.post(
                f"/v1/runs/{run_id}/hooks/move/ask",
                json={"column": 3},
                headers={"x-fluvial-resume-id": "r"},
            )

        assert asked.json()["withheld"] == "needs the scope data:read"
        assert "answer" not in asked.json()

    control(scenario)


@pytest.mark.parametrize(
    ("payload", "why", "code", "detail"),
    [
        (
            '"column 3 is full"',
            "",
            "ask_refused",
            "the run's hook 'move' refused: column 3 is full",
        ),
        ('"payload: bad"', "invalid", "ask_refused", "the run's hook 'move' refused: payload: bad"),
        ('"closed"', "closed", "ask_unanswered", "the run's hook 'move' will not answer: the hook"),
    ],
)
def test_a_refusal_says_why(
    control: Control, payload: str, why: str, code: str, detail: str
) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        asking = asyncio.create_task(_ask(world, run_id))
        await _until_sent(world)
        await _answered(world, run_id, "r", payload, ok=False, why=why)
        refused = await asking

        assert (refused.status_code, refused.json()["code"]) == (409, code)
        assert refused.json()["detail"].startswith(detail)

    control(scenario)


def test_who_asks_a_run_that_ends_is_told(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        asking = asyncio.create_task(_ask(world, run_id))
        await _until_sent(world)
        end = Event(EventType.RUN_COMPLETED, 4000, 0, b"1")
        await world.record(run_id, end, status=RunStatus.COMPLETED)
        told = await asking

        assert (told.status_code, told.json()["code"]) == (409, "ask_unanswered")
        assert "completed" in told.json()["detail"]

    control(scenario)


def test_a_question_without_an_answer_in_time_can_be_asked_again(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        late = await _ask(world, run_id, timeout=1)

        assert (late.status_code, late.json()["code"]) == (504, "ask_timeout")
        assert (late.json()["run_id"], late.json()["resume_id"]) == (run_id, "r")

    control(scenario)


def test_a_gateway_that_stops_ends_the_wait(control: Control) -> None:
    async def scenario(world: World) -> None:
        run_id = await _playing(world)
        asking = asyncio.create_task(_ask(world, run_id))
        await _until_sent(world)
        world.waits.close()
        told = await asking

        assert (told.status_code, told.json()["code"]) == (503, "unavailable")

    control(scenario)
