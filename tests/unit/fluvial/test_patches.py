"""`patched`: new runs take the new path, old ones stay on theirs, and both replay for good."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import InvalidRequestError
from fluvial.events import INPUTS, Event, EventType, decode_event
from fluvial.invocations import Answer, TurnRequest
from fluvial.patches import MAX_PATCH_CHARACTERS, patched
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Outcome, Play

Body = Callable[[], Coroutine[Any, Any, Any]]


@step(name="patches.old_way")
async def old_way() -> str:
    return "old"


@step(name="patches.new_way")
async def new_way() -> str:
    return "new"


@step(name="patches.asking")
async def asking() -> bool:
    return patched("in a step")


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in (old_way, new_way, asking):
        registry.add_step(each)


async def before() -> str:
    await asyncio.sleep(1)
    return await old_way()


async def after() -> str:
    await asyncio.sleep(1)
    return await new_way() if patched("way") else await old_way()


def patches(events: Sequence[Event]) -> list[str]:
    return [event.meta["patch"] for event in events if event.type is EventType.PATCHED]


class Upgrade:
    """Plays the old code, and turns its log over to the new code."""

    def __init__(self, play: Play, keys: AppKeys) -> None:
        self._play = play
        self._keys = keys

    def played(self, body: Body) -> Outcome:
        registry.workflows.clear()
        return self._play(workflow(name="flow")(body))

    def replay(self, events: Sequence[Event], body: Body, *, consumed: int | None = None) -> Answer:
        """Return what the new code makes of a log of which inputs were consumed (None: all)."""
        registry.workflows.clear()
        workflow(name="flow")(body)
        inputs = sum(event.type in INPUTS for event in events)
        request = TurnRequest(
            run_id="run_0000000000000000000000000a",
            app="orders",
            workflow="flow",
            turn_id=None,
            consumed=inputs if consumed is None else consumed,
            now_ms=events[-1].at_ms,
            events=[event.encode() for event in events],
        )
        return LiveRuns(registry, self._keys).turn(request)


@pytest.fixture
def upgrade(play: Play, keys: AppKeys) -> Upgrade:
    return Upgrade(play, keys)


def outputs(answer: Answer) -> list[str]:
    assert answer.outcome == "ok", answer.reason
    return [decode_event(event).type.name for event in answer.events]


def test_a_new_run_takes_the_patch_and_records_it_in_its_place(upgrade: Upgrade) -> None:
    outcome = upgrade.played(after)

    assert outcome.result == "new"
    assert outcome.types == [
        "RUN_STARTED",
        "TIMER_SET",
        "TIMER_FIRED",
        "PATCHED",
        "STEP_SCHEDULED",
        "STEP_COMPLETED",
        "RUN_COMPLETED",
    ]
    (taken,) = (event for event in outcome.events if event.type is EventType.PATCHED)
    assert (taken.id, taken.meta, taken.payload) == (0, {"patch": "way"}, b"")
    # It is no operation: the step after it has the next number.
    assert [event.id for event in outcome.events] == [0, 1, 1, 0, 2, 2, 0]


def test_an_old_run_that_has_passed_the_point_stays_on_its_path(upgrade: Upgrade) -> None:
    events = upgrade.played(before).events[:-2]  # its step is under way

    assert outputs(upgrade.replay(events, after)) == []
    done = upgrade.played(before).events[:-1]
    assert outputs(upgrade.replay(done, after, consumed=2)) == ["RUN_COMPLETED"]


def test_an_old_run_that_comes_by_later_takes_the_patch(upgrade: Upgrade) -> None:
    events = upgrade.played(before).events[:3]  # it slept, and has not gone on

    answer = upgrade.replay(events, after, consumed=1)

    assert outputs(answer) == ["PATCHED", "STEP_SCHEDULED"]
    assert decode_event(answer.events[1]).meta["name"] == "patches.new_way"


def test_a_run_with_the_patch_does_not_go_back(upgrade: Upgrade) -> None:
    events = upgrade.played(after).events[:-2]

    answer = upgrade.replay(events, before)

    assert answer.outcome == "diverged"
    assert "- recorded: STEP_SCHEDULED patches.new_way" in answer.reason


def test_what_holds_once_holds_everywhere_and_is_recorded_once(upgrade: Upgrade) -> None:
    async def flow() -> list[bool]:
        answers = [patched("a"), patched("a")]
        await asyncio.sleep(1)

        async def task() -> bool:
            return patched("a")

        return [*answers, *await asyncio.gather(task(), task()), patched("a")]

    outcome = upgrade.played(flow)

    assert outcome.result == [True] * 5
    assert patches(outcome.events) == ["a"]


def test_an_old_run_stays_on_its_path_in_every_later_round(upgrade: Upgrade) -> None:
    async def rounds() -> None:
        for _ in range(3):
            await old_way()

    async def patched_rounds() -> None:
        for _ in range(3):
            await (new_way() if patched("round") else old_way())

    events = upgrade.played(rounds).events[:3]  # one round is over

    answer = upgrade.replay(events, patched_rounds, consumed=1)

    assert outputs(answer) == ["STEP_SCHEDULED"]
    assert decode_event(answer.events[0]).meta["name"] == "patches.old_way"


def test_several_patches_nest_and_keep_their_order(upgrade: Upgrade) -> None:
    async def flow() -> list[str]:
        ways: list[str] = []

        async def task() -> None:
            if patched("second"):
                await asyncio.sleep(1)
                if patched("third"):
                    ways.append(await new_way())

        if patched("first"):
            async with asyncio.TaskGroup() as group:
                group.create_task(task())
                group.create_task(task())
        return ways

    outcome = upgrade.played(flow)

    assert outcome.result == ["new", "new"]
    assert patches(outcome.events) == ["first", "second", "third"]


def test_one_of_two_patches_may_be_older_than_a_run(upgrade: Upgrade) -> None:
    async def first_only() -> str:
        if patched("first"):
            await asyncio.sleep(1)
        return await old_way()

    async def both() -> str:
        if patched("first"):
            await asyncio.sleep(1)
        return await (new_way() if patched("second") else old_way())

    events = upgrade.played(first_only).events

    assert outputs(upgrade.replay(events[:4], both, consumed=1)) == ["PATCHED", "STEP_SCHEDULED"]
    assert outputs(upgrade.replay(events[:-2], both)) == []


def test_a_patch_that_is_removed_again_disturbs_no_run_that_has_it(upgrade: Upgrade) -> None:
    async def without() -> str:
        await asyncio.sleep(1)
        return await new_way()

    events = upgrade.played(after).events

    assert outputs(upgrade.replay(events[:2], without)) == []
    assert outputs(upgrade.replay(events[:5], without)) == []
    assert outputs(upgrade.replay(events[:-1], without, consumed=2)) == ["RUN_COMPLETED"]


def test_a_patch_asked_for_last_of_all_is_recorded(upgrade: Upgrade) -> None:
    async def flow() -> str:
        await asyncio.sleep(1)
        return "new" if patched("end") else "old"

    outcome = upgrade.played(flow)

    assert outcome.types[-2:] == ["PATCHED", "RUN_COMPLETED"]


def test_operations_given_up_at_once_leave_the_patch_in_its_place(upgrade: Upgrade) -> None:
    async def flow() -> str:
        task = asyncio.create_task(old_way())
        await asyncio.sleep(0)
        task.cancel()
        return await (new_way() if patched("way") else old_way())

    assert upgrade.played(flow).types[1:3] == ["PATCHED", "STEP_SCHEDULED"]


def test_outside_of_workflows_the_new_path_is_taken(upgrade: Upgrade) -> None:
    async def flow() -> bool:
        return await asking()

    outcome = upgrade.played(flow)

    assert patched("anywhere")
    assert outcome.result is True
    assert patches(outcome.events) == []


@pytest.mark.parametrize("patch", ["", "x" * (MAX_PATCH_CHARACTERS + 1)])
def test_a_name_has_a_length(patch: str) -> None:
    with pytest.raises(InvalidRequestError, match="1 to 256 characters"):
        patched(patch)
