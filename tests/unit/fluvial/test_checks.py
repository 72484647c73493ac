"""Replay checks: a whole log against other code, with nothing proposed and nothing disturbed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from fluvial.annotations import publish
from fluvial.checks import MAX_WARNINGS, CheckReport, CheckRequest
from fluvial.encryption import AppKeys
from fluvial.errors import WireError
from fluvial.events import INPUTS, Event, EventType
from fluvial.hooks import Hook
from fluvial.invocations import MAX_REASON_CHARACTERS, TurnRequest, unpack_list
from fluvial.registry import registry
from fluvial.starting import start
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

Body = Callable[..., Coroutine[Any, Any, Any]]
RUN = "run_0000000000000000000000000a"


@step(name="checks.price")
async def price(order: str, tags: set[str] | None = None) -> int:
    return len(order)


@step(name="checks.pay")
async def pay(cents: int) -> str:
    return f"paid {cents}"


@workflow(name="checks.child")
async def child_of_checks(order: str) -> int:
    return len(order)


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in (price, pay):
        registry.add_step(each)


async def buy(order: str) -> str:
    cents = await price(order, {"a", "b", "c"})
    await asyncio.sleep(1)
    return await pay(cents)


class Check:
    """Plays one code and checks another one against its log."""

    def __init__(self, play: Play, keys: AppKeys) -> None:
        self.play = play
        self.keys = keys

    def played(self, body: Body, *args: Any, **options: Any) -> list[Event]:
        registry.workflows.clear()
        return self.play(workflow(name="buy")(body), *args, **options).events

    def __call__(
        self,
        events: Sequence[Event],
        body: Body,
        *,
        consumed: int | None = None,
        values: bool = False,
    ) -> CheckReport:
        registry.workflows.clear()
        workflow(name="buy")(body)
        return LiveRuns(registry, self.keys).check(request(events, consumed, values))


def request(
    events: Sequence[Event], consumed: int | None = None, values: bool = False
) -> CheckRequest:
    inputs = sum(event.type in INPUTS for event in events)
    return CheckRequest(
        run_id=RUN,
        app="orders",
        workflow="buy",
        consumed=inputs if consumed is None else consumed,
        compares_values=values,
        events=[event.encode() for event in events],
    )


@pytest.fixture
def check(play: Play, keys: AppKeys) -> Check:
    return Check(play, keys)


def test_a_log_that_matches_is_ok_however_far_it_goes(check: Check) -> None:
    events = check.played(buy, "book")

    assert check(events, buy, values=True) == CheckReport(verdict="ok", warnings=[])
    for length, consumed in ((1, 0), (2, 1), (3, 1), (4, 2), (6, 3), (7, 3)):
        assert check(events[:length], buy, consumed=consumed).verdict == "ok"


async def converse(order: str) -> int:
    publish({"order": order})
    child = await start(child_of_checks, order)
    async with Hook(int) as hook:
        publish(hook.token)
        return await price(order) + await hook + await child.result()


def test_hooks_children_and_state_are_no_false_alarm(check: Check) -> None:
    children = {"checks.child": len}
    action = check.play.resume(1000, 5)
    events = check.played(converse, "book", actions=[action], children=children)

    assert check(events, converse, values=True) == CheckReport(verdict="ok", warnings=[])


def test_what_follows_a_hook_is_told_as_a_diff(check: Check) -> None:
    async def changed(order: str) -> int:
        publish({"order": order})
        child = await start(child_of_checks, order)
        async with Hook(int) as hook:
            return await price(order) + await hook + await child.result()

    action = check.play.resume(1000, 5)
    events = check.played(converse, "book", actions=[action], children={"checks.child": len})

    assert "- recorded: STATE_PUBLISHED" in check(events, changed).detail


def test_a_log_that_does_not_match_is_told_as_a_diff(check: Check) -> None:
    async def changed(order: str) -> str:
        return await pay(await price(order))

    report = check(check.played(buy, "book"), changed)

    assert report.verdict == "diverged"
    assert report.detail.splitlines()[:2] == [
        "    STEP_SCHEDULED checks.price (operation 1)",
        "  - recorded: TIMER_SET 1000 ms (operation 2)",
    ]
    assert "+ now:      STEP_SCHEDULED checks.pay (operation 2) at " in report.detail
    assert "resume" not in report.detail  # no run is paused by it


def test_a_run_that_should_have_ended_diverges(check: Check) -> None:
    async def longer(order: str) -> None:
        await buy(order)
        await asyncio.sleep(1)

    report = check(check.played(buy, "book"), longer)

    assert "- recorded: RUN_COMPLETED" in report.detail
    assert "+ now:      TIMER_SET 1000 ms (operation 4)" in report.detail


def test_a_run_that_was_ended_from_outside_is_ok(check: Check) -> None:
    events = check.played(buy, "book")[:4]
    ended = Event(EventType.RUN_TERMINATED, 5, meta={"reason": "x"})

    assert check([*events, ended], buy, consumed=2).verdict == "ok"


def test_a_missing_workflow_diverges(check: Check) -> None:
    events = check.played(buy, "book")
    registry.workflows.clear()
    report = LiveRuns(registry, check.keys).check(request(events))

    assert (report.verdict, report.detail) == (
        "diverged",
        "this deployment has no workflow 'buy'",
    )


@pytest.mark.parametrize("damage", ["key", "log"])
def test_what_cannot_be_read_is_told_apart(check: Check, damage: str) -> None:
    events = check.played(buy, "book")
    if damage == "key":
        check.keys = AppKeys("orders", {"k2": bytes(32)}, "k2")
    else:
        events = events[1:]
    report = check(events, buy, consumed=1)

    assert report.verdict == "unreadable"
    assert ("has no key" if damage == "key" else "RUN_STARTED") in report.detail


def test_other_arguments_and_results_are_warnings_without_values(check: Check) -> None:
    async def dearer(order: str) -> str:
        cents = await price(order, {"c", "b", "a"})
        await asyncio.sleep(1)
        return await pay(cents + 1) + "!"

    events = check.played(buy, "book")

    assert check(events, dearer).warnings == ()
    report = check(events, dearer, values=True)
    assert report.verdict == "ok"
    called, returned = report.warnings
    assert called.startswith("STEP_SCHEDULED checks.pay (operation 3) at ")
    assert called.endswith(" in dearer: called with other arguments than recorded")
    assert returned == "RUN_COMPLETED: returns something else than recorded"


def test_warnings_are_bounded(check: Check) -> None:
    async def many(number: int) -> None:
        for _ in range(MAX_WARNINGS + 5):
            await pay(number)

    async def others(number: int) -> None:
        await many(number + 1)

    report = check(check.played(many, 1), others, values=True)

    assert len(report.warnings) == MAX_WARNINGS


def test_a_check_leaves_the_live_run_alone(check: Check) -> None:
    async def waiting() -> str:
        async with Hook(str, token="t") as hook:
            return await hook

    registry.workflows.clear()
    workflow(name="buy")(waiting)
    live = LiveRuns(registry, check.keys)
    events = check.played(waiting, actions=[check.play.resume(10, "now")])
    turn = live.turn(
        TurnRequest(
            run_id=RUN,
            app="orders",
            workflow="buy",
            turn_id=None,
            consumed=0,
            now_ms=1,
            events=[events[0].encode()],
        )
    )
    held = live.held_bytes

    assert live.check(request(events[:2])).verdict == "ok"
    assert (len(live), live.held_bytes) == (1, held)
    again = TurnRequest(
        run_id=RUN,
        app="orders",
        workflow="buy",
        turn_id=turn.turn_id,
        consumed=1,
        now_ms=2,
        events=[events[2].encode()],
    )
    assert live.turn(again).outcome == "ok"


def test_a_request_and_a_report_survive_the_wire(check: Check) -> None:
    asked = request(check.played(buy, "book"), values=True)
    kind, meta, body = asked.to_frame_fields()
    report = CheckReport(verdict="diverged", detail="why", warnings=["w1", "w2"])

    assert (kind, CheckRequest.from_frame(meta, body)) == ("check", asked)
    assert CheckReport.from_texts(unpack_list(report.to_body(), at_most=100)) == report


@pytest.mark.parametrize("texts", [[], ["ok"], ["fine", ""], ["ok", None], ["ok", "", None]])
def test_what_is_no_report_is_refused(texts: list[str | None]) -> None:
    with pytest.raises(WireError):
        CheckReport.from_texts(texts)


def test_a_report_from_an_instance_is_bounded() -> None:
    report = CheckReport.from_texts(["ok", "x" * 10_000, *["y" * 10_000] * 100])

    assert len(report.detail) == MAX_REASON_CHARACTERS
    assert len(report.warnings) == MAX_WARNINGS
    assert all(len(warning) == 1000 for warning in report.warnings)
