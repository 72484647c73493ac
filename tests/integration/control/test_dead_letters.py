"""Dead letters over the control API: which runs they are, in what trouble, since when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fluvial.events import Event, EventType
from fluvial_queue.contract import RunStatus
from tests.integration.control.world import World

Control = Callable[..., None]


async def _paused(world: World, *further: Event, **meta: Any) -> str:
    run_id = await world.start()
    await world.record(
        run_id,
        Event(EventType.RUN_STARTED, 1000, 0, b"", {}),
        Event(EventType.RUN_PAUSED, 2000, 0, b"", {"reason": "why", **meta}),
        *further,
        status=RunStatus.PAUSED,
        reason="why",
    )
    return run_id


async def _letters(world: World, **query: str) -> list[dict[str, Any]]:
    response = await world.get("/v1/dead-letters", params=query)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["dead_letters"]
    return found


def test_a_run_that_the_platform_has_paused_is_a_dead_letter(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        await world.start()
        await _paused(world, by="ops")
        run_id = await _paused(world, code="poison")
        (letter,) = await _letters(world)

        assert (letter["run_id"], letter["code"], letter["reason"]) == (run_id, "poison", "why")
        assert letter["paused_at"] == "1970-01-01T00:00:02.000Z"
        assert letter["status"] == "paused"

    control(scenario)


def test_what_a_run_got_after_its_pause_hides_nothing(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        payloads = [Event(EventType.HOOK_RECEIVED, 3000, 1, b"x") for _ in range(250)]
        run_id = await _paused(world, *payloads, code="diverged")

        assert [letter["run_id"] for letter in await _letters(world)] == [run_id]

    control(scenario)


def test_dead_letters_are_filtered_and_paged(control: Control) -> None:
    async def scenario(world: World) -> None:
        await world.deploy()
        poison, diverged = (
            await _paused(world, code="poison"),
            await _paused(world, code="diverged"),
        )

        async def found(**query: str) -> set[str]:
            return {letter["run_id"] for letter in await _letters(world, **query)}

        assert await found(app="shop", workflow="fulfil") == {poison, diverged}
        assert await found(app="other") == set()
        assert await found(code="poison") == {poison}
        assert await found(code="poison,diverged", since="1h") == {poison, diverged}
        assert await found(code="exhausted") == set()
        first = (await world.get("/v1/dead-letters", params={"limit": 1})).json()
        rest = {"limit": "1", "cursor": first["cursor"]}
        assert {first["dead_letters"][0]["run_id"]} | await found(**rest) == {poison, diverged}

    control(scenario)


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"code": "bad"}, "query parameter code: 'bad' is none; known: bundle_missing, "),
        ({"status": "paused"}, "unknown query parameter 'status'"),
    ],
)
def test_a_filter_that_is_not_understood_is_refused(
    control: Control, query: dict[str, str], detail: str
) -> None:
    async def scenario(world: World) -> None:
        response = await world.get("/v1/dead-letters", params=query)

        assert response.status_code == 400
        assert detail in response.json()["detail"]

    control(scenario)
