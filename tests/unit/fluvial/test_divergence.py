"""What a person reads when a replay asks for something else than the log recorded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.encryption import AppKeys
from fluvial.errors import StepFailedError
from fluvial.events import INPUTS, Event, EventType
from fluvial.hooks import Hook
from fluvial.invocations import MAX_REASON_CHARACTERS, TurnRequest
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, RUN, context_on

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


# The arguments of steps


@step(name="divergence.fetch")
async def fetch(name: str, options: object = None) -> str:
    return name


class World:
    """What differs between two processes, in one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.options: object = None


def recorded_and_replayed(
    play: Play,
    keys: AppKeys,
    *,
    now: Sequence[str],
    then: Sequence[str] = ("a", "b", "c"),
    options: tuple[object, object] = (None, None),
    change: Callable[[list[Event]], list[Event]] | None = None,
    here: str | None = None,
) -> str:
    """Play a workflow in one world and replay it in another; return why it diverged, if it did."""
    registry.add_step(fetch)
    world = World()

    @workflow(name="divergence.arguments")
    async def main() -> list[str]:
        return [await fetch(name, world.options) for name in world.names]

    world.names, world.options = list(then), options[0]
    events = play(main).events[:-1]
    world.names, world.options = list(now), options[1]
    return context_on(here).run(answer_to, keys, events if change is None else change(events))


def answer_to(keys: AppKeys, events: list[Event]) -> str:
    inputs = sum(event.type in INPUTS for event in events)
    answer = LiveRuns(registry, keys).turn(
        TurnRequest(
            run_id=RUN, app=APP, workflow="divergence.arguments", turn_id=None,
            consumed=inputs - 1, now_ms=events[-1].at_ms, events=[e.encode() for e in events],
        )
    )  # fmt: skip
    assert (answer.outcome == "ok") == (answer.reason == "")
    return answer.reason


def test_other_arguments_are_told_with_their_line(play: Play, keys: AppKeys) -> None:
    reason = recorded_and_replayed(play, keys, now=["a", "c", "b"])

    assert "    STEP_SCHEDULED divergence.fetch (operation 1)" in reason
    assert "- recorded: STEP_SCHEDULED divergence.fetch (operation 2)\n" in reason
    assert "divergence.fetch (operation 2) with other arguments at " in reason
    assert f"{HERE}:{line_of(recorded_and_replayed, 'await fetch(')}" in reason
    assert '"b"' not in reason


@pytest.mark.parametrize(
    "options",
    [
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ({"one", "two", "three", "four"}, {"four", "three", "two", "one"}),
        ((1, 2.5), (1, 2.5)),
    ],
    ids=["dict", "set", "equal"],
)
def test_equal_arguments_raise_no_alarm(
    play: Play, keys: AppKeys, options: tuple[object, object]
) -> None:
    assert recorded_and_replayed(play, keys, now=["a", "b", "c"], options=options) == ""


@pytest.mark.parametrize("options", [(1, 2), ({"x": 1}, {"x": 2}), ([1, 2], (1, 2)), (None, 0)])
def test_unequal_arguments_are_caught(
    play: Play, keys: AppKeys, options: tuple[object, object]
) -> None:
    reason = recorded_and_replayed(play, keys, now=["a", "b", "c"], options=options)

    assert "with other arguments" in reason


def test_arguments_may_change_with_the_deployment(play: Play, keys: AppKeys) -> None:
    changed = ["x", "y", "z"]

    assert recorded_and_replayed(play, keys, now=changed, here="dpl_new") == ""
    assert "other arguments" in recorded_and_replayed(play, keys, now=changed, here="dpl_x")


def resumed_at(place: int, deployment: str | None) -> Callable[[list[Event]], list[Event]]:
    meta = {"by": "x"} if deployment is None else {"by": "x", "deployment": deployment}
    event = Event(EventType.RUN_RESUMED, 0, meta=meta)
    return lambda events: [*events[:place], event, *events[place:]]


def test_a_run_that_has_moved_is_compared_from_there_on(play: Play, keys: AppKeys) -> None:
    """The log: started, scheduled a, completed a, scheduled b, …"""
    moved = resumed_at(3, "dpl_new")

    def replayed(now: list[str], here: str) -> str:
        return recorded_and_replayed(play, keys, now=now, change=moved, here=here)

    assert replayed(["x", "b", "c"], "dpl_new") == ""
    assert "(operation 2) with other arguments" in replayed(["x", "y", "c"], "dpl_new")
    assert replayed(["x", "y", "z"], "dpl_newest") == ""


def test_a_run_that_was_resumed_where_it_was_is_compared(play: Play, keys: AppKeys) -> None:
    stayed = resumed_at(3, None)

    assert "other arguments" in recorded_and_replayed(
        play, keys, now=["x", "b", "c"], change=stayed, here="dpl_x"
    )


def test_a_forked_run_is_compared_behind_its_origins_part(play: Play, keys: AppKeys) -> None:
    def forked(events: list[Event]) -> list[Event]:
        mark = Event(EventType.RUN_FORKED, 0, meta={"origin": "run_y", "events": 3})
        return [*events[:3], mark, *events[3:]]

    def replayed(now: list[str]) -> str:
        return recorded_and_replayed(play, keys, now=now, change=forked, here="dpl_other")

    assert replayed(["x", "b", "c"]) == ""
    assert "(operation 2) with other arguments" in replayed(["x", "y", "c"])


def test_of_a_long_log_both_ends_are_compared(play: Play, keys: AppKeys) -> None:
    names = [str(number) for number in range(200)]

    def replayed(at: int) -> str:
        now = [*names[:at], "other", *names[at + 1 :]]
        return recorded_and_replayed(play, keys, then=names, now=now)

    assert "(operation 64) with other arguments" in replayed(63)
    assert replayed(100) == ""
    assert "(operation 137) with other arguments" in replayed(136)
