"""Child runs, continue_as_new, tags and published state, as a workflow sees them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import fluvial
from fluvial import StartOptions
from fluvial.codec import decode
from fluvial.errors import InvalidRequestError, NotInWorkflowError, RunFailedError
from fluvial.events import EventType
from fluvial.ids import child_run_id, continued_run_id, keyed_run_id
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from tests.unit.fluvial.conftest import Play

RUN = "run_0000000000000000000000000a"


@workflow(name="children.double")
async def double(number: int) -> int:
    return 2 * number


@workflow(name="children.fails")
async def fails() -> None:
    raise ValueError("no")


def _twice(number: int) -> int:
    return 2 * number


CHILDREN: dict[str, Any] = {"children.double": _twice, "children.fails": ValueError("no")}


@pytest.fixture(autouse=True)
def registered() -> None:
    """The workflows above, in the registry of every test."""
    from fluvial.registry import registry

    for known in (double, fails):
        registry.workflows[known.name] = known


def test_a_parent_waits_for_its_children(play: Play) -> None:
    @workflow
    async def parent() -> list[int]:
        runs = [await fluvial.start(double, n) for n in range(3)]
        return list(await asyncio.gather(*(run.result() for run in runs)))

    outcome = play(parent, children=CHILDREN)

    assert outcome.result == [0, 2, 4]
    scheduled = [e.meta for e in outcome.events if e.type is EventType.CHILD_SCHEDULED]
    assert [m["run"] for m in scheduled] == [child_run_id(RUN, n, 1) for n in (1, 2, 3)]
    assert {m["policy"] for m in scheduled} == {"cancel"}


def test_execute_starts_and_waits(play: Play) -> None:
    @workflow
    async def parent() -> int:
        return await fluvial.execute(double, 21)

    assert play(parent, children=CHILDREN).result == 42


def test_the_error_of_a_child_is_the_cause_of_its_failure(play: Play) -> None:
    @workflow
    async def parent() -> str:
        try:
            await fluvial.execute(fails)
        except RunFailedError as error:
            return f"{error.reason} / {type(error.__cause__).__name__}"
        return "unexpected"

    assert play(parent, children=CHILDREN).result == "failed: ValueError: no / ValueError"


def test_a_failure_that_nobody_waits_for_is_nobodys(play: Play) -> None:
    @workflow
    async def parent() -> str:
        await fluvial.start(fails)
        await asyncio.sleep(1)
        return "fine"

    assert play(parent, children=CHILDREN).result == "fine"


def test_to_give_up_an_execute_cancels_the_child_and_to_give_up_a_wait_does_not(play: Play) -> None:
    @workflow
    async def parent() -> list[str]:
        said: list[str] = []
        try:
            async with asyncio.timeout(0.001):
                await fluvial.execute(double, 1)
        except TimeoutError:
            said.append("gave the child up")
        run = await fluvial.start(double, 2)
        try:
            await run.result(timeout=0.001)
        except TimeoutError:
            said.append("waits no more")
        return [*said, str(await run.result())]

    outcome = play(parent, children=CHILDREN)

    assert outcome.result == ["gave the child up", "waits no more", "4"]
    assert outcome.count(EventType.CHILD_CANCELLED) == 1


def test_a_cancelled_child_is_no_longer_waited_for(play: Play) -> None:
    @workflow
    async def parent() -> str:
        run = await fluvial.start(double, 2)
        await run.cancel()
        try:
            await run.result()
        except fluvial.RunCancelledError:
            return "cancelled"
        return "unexpected"

    assert play(parent, children=CHILDREN).result == "cancelled"


def test_a_child_is_started_as_its_options_say(play: Play) -> None:
    options = StartOptions(
        delay="5s",
        deadline=timedelta(hours=1),
        tags={"kind": "x"},
        priority=3,
        retention="1d",
        deployment="latest",
        detached=True,
    )

    @workflow
    async def parent() -> str:
        run = await fluvial.start(double, 2, key="k", options=options)
        return run.id

    outcome = play(parent, children=CHILDREN)

    expected = keyed_run_id("orders", "children.double", "k", 1)
    assert outcome.result == expected
    (scheduled,) = [e for e in outcome.events if e.type is EventType.CHILD_SCHEDULED]
    assert scheduled.meta == {
        "workflow": "children.double",
        "run": expected,
        "policy": "detach",
        "key": "k",
        "delay_ms": 5_000,
        "deadline_ms": 3_600_000,
        "retention_ms": 86_400_000,
        "tags": {"kind": "x"},
        "priority": 3,
        "deployment": "latest",
    }


def test_nobody_waits_for_a_detached_child(play: Play) -> None:
    @workflow
    async def parent() -> str:
        run = await fluvial.start(double, 2, options=StartOptions(detached=True))
        try:
            await run.result()
        except InvalidRequestError as error:
            return str(error)
        return "unexpected"

    assert "is detached" in play(parent, children=CHILDREN).result


def test_what_asks_the_platform_belongs_into_a_step(play: Play) -> None:
    @workflow
    async def parent() -> str:
        run = await fluvial.start(double, 2)
        try:
            await run.refresh()
        except fluvial.WorkflowSandboxError as error:
            return str(error)
        return "unexpected"

    assert "Run.refresh()" in play(parent, children=CHILDREN).result


def test_a_workflow_goes_on_as_a_new_run(play: Play, keys: AppKeys) -> None:
    cleaned: list[str] = []

    @step(name="children.clean")
    async def clean() -> None:
        cleaned.append("x")

    @workflow
    async def counter(number: int) -> None:
        try:
            fluvial.continue_as_new(number + 1)
        finally:
            await clean()

    last = play(counter, 1).events[-1]

    assert last.type is EventType.RUN_CONTINUED
    assert last.meta == {"run": continued_run_id(RUN)}
    sealed = keys.for_run(continued_run_id(RUN)).open(last.payload, "input")
    assert decode(sealed) == [[2], {}]


def test_to_continue_is_no_error_that_a_handler_catches(play: Play) -> None:
    @workflow
    async def counter() -> str:
        try:
            fluvial.continue_as_new(deployment="latest")
        except Exception:  # noqa: BLE001 - what is tested
            return "caught"

    last = play(counter).events[-1]

    assert last.type is EventType.RUN_CONTINUED
    assert last.meta["deployment"] == "latest"


def test_a_run_tags_itself_and_publishes_its_state(play: Play, keys: AppKeys) -> None:
    @workflow
    async def parent() -> None:
        await fluvial.set_tags({"phase": "one"})
        fluvial.publish({"done": 0})
        await asyncio.sleep(1)
        await fluvial.set_tags({"phase": None})
        fluvial.publish({"done": 1})

    outcome = play(parent)

    assert outcome.types == [
        "RUN_STARTED",
        "TAGS_SET",
        "STATE_PUBLISHED",
        "TIMER_SET",
        "TIMER_FIRED",
        "TAGS_SET",
        "STATE_PUBLISHED",
        "RUN_COMPLETED",
    ]
    states = [e for e in outcome.events if e.type is EventType.STATE_PUBLISHED]
    opened = [keys.for_run(RUN).open(s.payload, "state", 0, i) for i, s in enumerate(states, 1)]
    assert [decode(plaintext) for plaintext in opened] == [{"done": 0}, {"done": 1}]


def test_outside_a_workflow_there_is_nothing_to_publish_or_to_continue() -> None:
    with pytest.raises(NotInWorkflowError):
        fluvial.publish(1)
    with pytest.raises(NotInWorkflowError):
        fluvial.continue_as_new()


def test_sleeps_that_somebody_ends_do_not_move_the_clock(play: Play) -> None:
    @workflow
    async def parent() -> float:
        began = fluvial.now()
        await fluvial.sleep("10d")
        return (fluvial.now() - began).total_seconds()

    assert play(parent, actions=[play.wake(3_000)]).result == 3.0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"priority": 101}, "priority"),
        ({"delay": -1}, "delay"),
        ({"tags": {"": "x"}}, "name"),
        ({"tags": {"x" * 257: "x"}}, "256"),
        ({"tags": {str(n): "x" for n in range(65)}}, "64"),
        ({"singleton": ""}, "singleton"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        StartOptions(**options).to_meta(0.0)
