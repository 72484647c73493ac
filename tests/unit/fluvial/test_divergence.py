"""What a person reads when a replay asks for something else than the log recorded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import StepFailedError
from fluvial.hooks import Hook
from fluvial.invocations import MAX_REASON_CHARACTERS, TurnRequest
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

Body = Callable[[], Coroutine[Any, Any, Any]]
HERE = "test_divergence.py"


@step
async def pack_order() -> str:
    return "reserved"


@step
async def charge_card() -> str:
    return "charged"


@step
async def refund_card() -> str:
    return "refunded"


@step(retries=0)
async def fail_order() -> None:
    raise ValueError("secret detail")


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in (pack_order, charge_card, refund_card, fail_order):
        registry.add_step(each)


class Upgrade:
    """Plays the old code, then replays its log on the new code."""

    def __init__(self, play: Play, keys: AppKeys) -> None:
        self._play = play
        self._keys = keys

    def __call__(
        self,
        old: Body,
        new: Body,
        *,
        consumed: int | None = None,
        durations: dict[str, int] | None = None,
    ) -> str:
        """Return why the new code diverged."""
        outcome = self._play(workflow(name="fulfil")(old), durations=durations)
        registry.workflows.clear()
        workflow(name="fulfil")(new)
        log = [event.encode() for event in outcome.events]
        inputs = sum(event.type < 20 for event in outcome.events)
        request = TurnRequest(
            run_id="run_0000000000000000000000000a",
            app="orders",
            workflow="fulfil",
            turn_id=None,
            consumed=inputs if consumed is None else consumed,
            now_ms=outcome.events[-1].at_ms,
            events=log,
        )
        answer = LiveRuns(registry, self._keys).turn(request)
        assert answer.outcome == "diverged"
        assert answer.events == ()
        # How this file is called depends on what is on sys.path.
        return answer.reason.replace("tests/unit/fluvial/", "")


@pytest.fixture
def upgrade(play: Play, keys: AppKeys) -> Upgrade:
    return Upgrade(play, keys)


def line_of(function: Callable[..., Any], text: str) -> int:
    """Return the number of the first line of a function that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(n for n, line in enumerate(lines) if text in line)


def test_another_step_is_told_as_a_diff_with_its_line(upgrade: Upgrade) -> None:
    async def old() -> None:
        await pack_order()
        await asyncio.sleep(5)
        await charge_card()

    async def new() -> None:
        await pack_order()
        await asyncio.sleep(5)
        await refund_card()

    where = f"{HERE}:{line_of(new, 'refund_card')} in new"
    heading, *diff, advice = upgrade(old, new).splitlines()

    assert heading == "the workflow now asks for something else than the log recorded"
    assert diff == [
        "    STEP_SCHEDULED pack_order (operation 1)",
        "    TIMER_SET 5000 ms (operation 2)",
        "  - recorded: STEP_SCHEDULED charge_card (operation 3)",
        f"  + now:      STEP_SCHEDULED refund_card (operation 3) at {where}",
    ]
    assert "fluvial runs resume RUN --deployment latest" in advice


def test_only_the_last_matches_are_shown(upgrade: Upgrade) -> None:
    async def old() -> None:
        for _ in range(9):
            await pack_order()
        await charge_card()

    async def new() -> None:
        for _ in range(9):
            await pack_order()
        await refund_card()

    diff = upgrade(old, new).splitlines()[1:-1]

    assert [line.strip() for line in diff[:3]] == [
        f"STEP_SCHEDULED pack_order (operation {number})" for number in (7, 8, 9)
    ]
    assert len(diff) == 5


def test_a_step_in_a_task_of_its_own_is_placed_where_it_was_called(upgrade: Upgrade) -> None:
    async def old() -> None:
        await asyncio.gather(pack_order(), charge_card())

    async def new() -> None:
        await asyncio.gather(
            pack_order(),
            refund_card(),
        )

    assert f"{HERE}:{line_of(new, 'refund_card()')} in new" in upgrade(old, new)


def test_a_task_group_and_a_helper_are_placed_in_the_helper(upgrade: Upgrade) -> None:
    async def helper() -> None:
        await pack_order()
        await refund_card()

    async def old() -> None:
        await pack_order()
        await charge_card()

    async def new() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(helper())

    assert f"{HERE}:{line_of(helper, 'refund_card')} in helper" in upgrade(old, new)


def test_a_generator_expression_is_placed_in_its_function(upgrade: Upgrade) -> None:
    async def old() -> None:
        await asyncio.gather(*(pack_order() for _ in range(2)))

    async def new() -> None:
        await asyncio.gather(*(refund_card() for _ in range(2)))

    assert f"{HERE}:{line_of(new, 'refund_card')} in new" in upgrade(old, new)


def test_a_workflow_that_ends_early_says_so(upgrade: Upgrade) -> None:
    async def old() -> None:
        await pack_order()
        await charge_card()

    async def new() -> None:
        await pack_order()

    reason = upgrade(old, new)

    assert "- recorded: STEP_SCHEDULED charge_card (operation 2)" in reason
    assert "+ now:      RUN_COMPLETED\n" in reason


def test_a_workflow_that_goes_on_too_long_says_so(upgrade: Upgrade) -> None:
    async def old() -> None:
        await pack_order()

    async def new() -> None:
        await pack_order()
        await charge_card()

    reason = upgrade(old, new)

    assert "- recorded: RUN_COMPLETED\n" in reason
    assert "+ now:      STEP_SCHEDULED charge_card (operation 2) at " in reason


def test_an_error_in_new_code_is_placed_where_it_was_raised(upgrade: Upgrade) -> None:
    async def old() -> None:
        await pack_order()
        await charge_card()

    def lookup() -> str:
        return {"a": "b"}["secret"]

    async def new() -> None:
        await pack_order()
        lookup()

    reason = upgrade(old, new)

    assert f"+ now:      RUN_FAILED at {HERE}:{line_of(lookup, 'return')} in lookup" in reason
    assert "secret" not in reason


def test_a_failed_step_that_is_not_caught_any_more_is_placed(upgrade: Upgrade) -> None:
    async def old() -> None:
        try:
            await fail_order()
        except StepFailedError:
            await refund_card()

    async def new() -> None:
        await fail_order()
        await refund_card()

    reason = upgrade(old, new)

    assert f"+ now:      RUN_FAILED at {HERE}:{line_of(new, 'fail_order')} in new" in reason
    assert "secret" not in reason


def test_a_workflow_that_asks_for_less_says_where_it_waits(upgrade: Upgrade) -> None:
    async def old() -> None:
        await asyncio.gather(pack_order(), charge_card())

    async def new() -> None:
        await pack_order()
        await charge_card()

    reason = upgrade(old, new, consumed=1)

    waits = f"nothing; the workflow waits at {HERE}:{line_of(new, 'pack_order')} in new"
    assert "- recorded: STEP_SCHEDULED charge_card (operation 2)" in reason
    assert f"+ now:      {waits}" in reason


def test_a_result_for_something_not_asked_now_says_where_it_waits(upgrade: Upgrade) -> None:
    async def old() -> None:
        await asyncio.gather(pack_order(), charge_card())

    async def new() -> None:
        await pack_order()
        await charge_card()

    # The result of operation 2 comes while the new code has asked for one operation.
    reason = upgrade(old, new, durations={"pack_order": 100})

    assert "- recorded: STEP_SCHEDULED charge_card (operation 2)" in reason
    assert f"the workflow waits at {HERE}:{line_of(new, 'pack_order')} in new" in reason


def test_a_timer_that_is_given_up_now_is_placed(upgrade: Upgrade) -> None:
    async def old() -> None:
        async with asyncio.timeout(60):
            await pack_order()
            await charge_card()

    async def new() -> None:
        async with asyncio.timeout(60):
            await pack_order()
        await charge_card()

    reason = upgrade(old, new)

    # The end of the `async with` gives the timer up; Python names the line of the `with`.
    where = f"{HERE}:{line_of(new, 'async with')} in new"
    assert f"+ now:      TIMER_CANCELLED (operation 1) at {where}" in reason


def test_a_token_is_not_told(upgrade: Upgrade) -> None:
    async def old() -> None:
        async with Hook(token="jane@example.org"):
            await charge_card()

    async def new() -> None:
        async with Hook(token="jack@example.org"):
            await charge_card()

    reason = upgrade(old, new)

    where = f"{HERE}:{line_of(new, 'async with')} in new"
    assert reason.splitlines()[1:3] == [
        "  - recorded: HOOK_OPENED (operation 1)",
        f"  + now:      HOOK_OPENED (operation 1) with another token at {where}",
    ]
    assert "example.org" not in reason


def test_a_reason_is_bounded(upgrade: Upgrade) -> None:
    steps = [step(name=f"{letter * 256}")(pack_order.function) for letter in "abcde"]

    async def old() -> None:
        for each in steps:
            await each()

    async def new() -> None:
        for each in (*steps[:4], steps[0]):
            await each()

    reason = upgrade(old, new)

    assert len(reason) < MAX_REASON_CHARACTERS
    assert reason.endswith("--deployment latest")


def test_code_that_differs_each_time_is_told_without_a_diff(upgrade: Upgrade) -> None:
    turns: list[int] = []

    async def old() -> None:
        await charge_card()

    async def new() -> None:
        turns.append(1)
        await (refund_card() if len(turns) == 1 else charge_card())

    reason = upgrade(old, new)

    assert "the log recorded STEP_SCHEDULED charge_card (operation 1)" in reason
