"""The audit log: one line for each call that may change something."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from fluvial.ids import new_run_id
from fluvial_gateway.auth import Scope
from fluvial_gateway.problems import ProblemError
from tests.integration.control.test_access import path_of
from tests.integration.control.world import World, client_of

Control = Callable[..., None]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return what the audit log says."""
    return [r.__dict__ for r in caplog.records if r.name == "fluvial_gateway.audit"]


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    caplog.set_level(logging.INFO, "fluvial_gateway.audit")
    return lambda: lines(caplog)


def test_every_operation_that_changes_something_leaves_one_line(
    control: Control, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    async def scenario(world: World) -> None:
        for operation in world.operations:
            if operation.scopes:
                await world.client.request(operation.method, path_of(operation))

        changing = [o.name for o in world.operations if o.method != "GET"]
        assert sorted(line["operation"] for line in audited()) == sorted(changing)
        assert {line["token_name"] for line in audited()} == {"test"}
        assert all(line["outcome"] for line in audited())

    control(scenario)


def test_a_line_says_who_did_what_to_which_run(
    control: Control, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start([1])
        await world.post(f"/v1/runs/{run_id}/cancel", json={"reason": "customer 7 said so"})
        await world.post(f"/v1/runs/{new_run_id(4)}/cancel")

        _, started, cancelled, unknown = audited()
        assert (started["operation"], started["about"]["app"]) == ("startRun", "shop")
        assert (started["about"]["run_id"], started["about"]["start"]) == (run_id, "accepted")
        assert (cancelled["operation"], cancelled["about"]["id"]) == ("cancelRun", run_id)
        assert (cancelled["outcome"], unknown["outcome"]) == ("ok", "run_not_found")
        assert "customer 7" not in str(audited())  # what a person writes may be data

    control(scenario)


def test_who_may_not_leaves_a_line_and_who_is_unknown_none(
    control: Control, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    async def scenario(world: World) -> None:
        reader = await world.tokens.create("reader", [Scope.RUNS_READ])
        for token in (reader, "x" * 40, None):
            async with client_of(world, token) as client:
                await client.post(f"/v1/runs/{new_run_id(4)}/cancel")

        (line,) = audited()
        assert (line["token_name"], line["outcome"]) == ("reader", "access_denied")

    control(scenario)


def test_a_hook_s_token_is_a_secret(
    control: Control, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    async def scenario(world: World) -> None:
        await world.post("/v1/hooks/shop/hook-token-of-somebody", json=1)

        (line,) = audited()
        assert (line["operation"], line["about"]) == ("resumeHook", {"app": "shop"})
        assert "hook-token" not in str(line)

    control(scenario)


def test_what_is_streamed_leaves_its_line_at_the_end(
    control: Control, audited: Callable[[], list[dict[str, Any]]]
) -> None:
    async def scenario(world: World) -> None:
        deployed = await world.deploy(b"one")
        world.builder.refusal = ProblemError("build_failed", "no")
        await world.deploy(b"two")

        done, refused = audited()
        assert done["outcome"] == "ok"
        assert done["about"]["deployment"] == deployed["deployment"]["deployment"]
        assert refused["outcome"] == "build_failed"

    control(scenario)


@pytest.mark.parametrize("what", ["a call", "a stream"])
def test_what_the_end_of_the_gateway_interrupts_leaves_a_line(
    control: Control, audited: Callable[[], list[dict[str, Any]]], what: str
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start()
        if what == "a call":
            under_way = world.store.sending = asyncio.Event()
            task = asyncio.create_task(world.post(f"/v1/runs/{run_id}/cancel"))
        else:
            world.builder.go_on, under_way = asyncio.Event(), world.builder.building
            under_way.clear()
            task = asyncio.create_task(world.upload(b"two"))
        await under_way.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert audited()[-1]["outcome"] == "interrupted"
        assert len(audited()) == 3

    control(scenario)
