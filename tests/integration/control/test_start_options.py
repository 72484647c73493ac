"""What a start may say beside the arguments, through the control API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fluvial_queue.messages import MessageKind
from tests.integration.control.world import World

Control = Callable[..., None]
PATH = "/v1/apps/shop/workflows/fulfil/runs"
HOUR_MS = 3_600_000


def test_a_run_is_started_as_its_options_say(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        now_ms = await world.store.now_ms()
        run_id = await world.start(
            {
                "args": [1],
                "delay": "1h 30m",
                "deadline": 86_400,
                "tags": {"customer": "acme"},
                "priority": 5,
                "retention": "30d",
            }
        )

        run = await world.runs.get(run_id)
        shown = (await world.get(f"/v1/runs/{run_id}")).json()
        assert await world.messages(run_id) == []  # its start is a timer
        assert 0 <= run.meta["start_at"] - now_ms - 1.5 * HOUR_MS < 60_000
        assert run.retention_ms == 30 * 24 * HOUR_MS
        assert (shown["tags"], shown["priority"]) == ({"customer": "acme"}, 5)
        assert shown["retention_seconds"] == 30 * 86_400
        assert shown["starts_at"] < shown["deadline_at"]

    control(scenario)


def test_a_run_has_the_retention_of_its_deployment_unless_its_start_says_otherwise(
    control: Control,
) -> None:
    async def scenario(world: World) -> None:
        world.builder.retention_ms = 48 * HOUR_MS
        deployed = (await world.deploy())["deployment"]
        plain = await world.runs.get(await world.start())
        other = await world.runs.get(await world.start({"retention": "1h"}))

        assert deployed["retention_seconds"] == 48 * 3600
        assert (plain.retention_ms, other.retention_ms) == (48 * HOUR_MS, HOUR_MS)

    control(scenario)


@pytest.mark.parametrize(
    ("ahead", "is_later"), [(timedelta(hours=1), True), (-timedelta(1), False)]
)
def test_a_run_begins_at_the_time_that_was_named(
    control: Control, ahead: timedelta, is_later: bool
) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        at = datetime.now(UTC) + ahead
        run_id = await world.start({"at": at.isoformat()})

        shown = (await world.get(f"/v1/runs/{run_id}")).json()
        kinds = [message.kind for _, message in await world.messages(run_id)]
        assert kinds == ([] if is_later else [MessageKind.START])
        assert (shown["starts_at"] is not None) is is_later

    control(scenario)


@pytest.mark.parametrize("named", ["old", "latest", None])
def test_a_run_is_started_on_the_deployment_that_was_named(
    control: Control, named: str | None
) -> None:
    async def scenario(world: World) -> None:
        old = (await world.deploy(b"one"))["deployment"]["deployment"]
        new = (await world.deploy(b"two"))["deployment"]["deployment"]
        body = {} if named is None else {"deployment": old if named == "old" else named}
        run_id = await world.start({"args": [], **body})

        assert (await world.runs.get(run_id)).deployment == (old if named == "old" else new)

    control(scenario)


def test_a_deployment_of_another_app_is_refused(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        other = (await world.deploy(b"other", name="other"))["deployment"]["deployment"]
        response = await world.post(PATH, json={"deployment": other})

        assert (response.status_code, response.json()["code"]) == (404, "deployment_not_found")

    control(scenario)


def test_a_singleton_that_is_alive_answers_with_its_run(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        first = await world.start({"singleton": "nightly"})
        refused = await world.post(PATH, json={"singleton": "nightly"})
        existing = await world.post(PATH, json={"singleton": "nightly", "on_conflict": "existing"})
        replaced = await world.start({"singleton": "nightly", "on_conflict": "replace"})

        assert (refused.status_code, refused.json()["code"]) == (409, "singleton_alive")
        assert refused.json()["run_id"] == first
        assert existing.json() == {"run_id": first, "outcome": "existing"}
        assert replaced != first
        kinds = [message.kind for _, message in await world.messages(first)]
        assert MessageKind.CANCEL in kinds

    control(scenario)


def test_a_key_with_another_input_names_the_run_that_has_it(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        run_id = await world.start({"args": [1], "key": "k"})
        refused = await world.post(PATH, json={"args": [2], "key": "k"})

        assert (refused.status_code, refused.json()["run_id"]) == (409, run_id)

    control(scenario)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"delay": "soon"}, "body.delay: 'soon' is not a duration"),
        ({"delay": -1}, "body.delay: is -1"),
        ({"delay": True}, "body.delay: expected number, got boolean"),
        ({"delay": "1h", "at": "2030-01-01T00:00:00Z"}, "body.at: a run has a delay or a time"),
        ({"at": "2030-01-01T00:00:00"}, "body.at: '2030-01-01T00:00:00' has no offset"),
        ({"at": "tomorrow"}, "body.at: 'tomorrow' is no time"),
        ({"at": "2999-01-01T00:00:00Z"}, "at: expected a time within the next hundred years"),
        ({"deadline": "1m", "delay": "1h"}, "would pass before the run begins"),
        ({"tags": {"": "x"}}, "body.tags: the name '': has 0 characters"),
        ({"tags": {"a": 1}}, "body.tags.a: expected string, got integer"),
        ({"tags": {str(n): "" for n in range(65)}}, "body.tags: has 65 members"),
        ({"priority": 101}, "body.priority: is 101, expected -100 to 100"),
        ({"retention": "1e400"}, "body.retention: '1e400' is not a duration"),
        ({"deployment": "newest"}, "body.deployment: 'newest' does not match"),
        ({"singleton": ""}, "body.singleton: has 0 characters"),
        ({"on_conflict": "wait"}, "body.on_conflict: 'wait' is not one of reject"),
        ({"dealy": 1}, "body: unknown member 'dealy'; known: args, kwargs, key"),
        (3, "body: expected array, got integer; or body: expected object"),
    ],
)
def test_a_wrong_option_is_refused_with_its_path(control: Control, body: Any, detail: str) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        response = await world.post(PATH, json=body)

        assert response.status_code == 400, response.text
        assert detail in response.json()["detail"]
        assert (await world.get("/v1/runs")).json()["runs"] == []

    control(scenario)
