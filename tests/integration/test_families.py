"""Child runs, runs that go on as new ones, and how runs are steered, on the whole path."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

import fluvial
from fluvial import StartOptions
from fluvial.codec import encode
from fluvial.events import EventType
from fluvial.ids import child_run_id, continued_run_id, new_run_id
from fluvial.resealing import ResealRequest, is_taken, reseal
from fluvial.testing import Mode
from fluvial_gateway.dispatcher import RENEW_SECONDS
from fluvial_queue.contract import RunQuery, RunStatus, SendOutcome
from fluvial_queue.cuts import Cut, cut_at_start, cut_before_failure
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.messages import Message, MessageKind
from fluvial_queue.views import pack_turn
from tests.integration.in_process import APP, Application, each_mode

if TYPE_CHECKING:
    from tests.integration.conftest import PlayOn

executions: list[str] = []
repaired: list[bool] = []


@fluvial.step(name="families.add")
async def add(a: int, b: int) -> int:
    return a + b


@fluvial.step(name="families.break", retries=0)
async def broken() -> None:
    raise ValueError("broken")


@fluvial.step(name="families.wait")
async def wait() -> None:
    await asyncio.sleep(60)


@fluvial.workflow(name="families.leaf")
async def leaf(number: int) -> int:
    return await add(number, number)


@fluvial.workflow(name="families.tree")
async def tree(depth: int) -> int:
    if depth == 0:
        return await leaf(1)
    runs = [await fluvial.start(tree, depth - 1) for _ in range(2)]
    return sum(await asyncio.gather(*(run.result() for run in runs)))


@fluvial.workflow(name="families.failing")
async def failing() -> None:
    await broken()


@fluvial.workflow(name="families.careful")
async def careful() -> str:
    try:
        await fluvial.execute(failing)
    except fluvial.RunFailedError as error:
        return type(error.__cause__).__name__
    return "unexpected"


@fluvial.workflow(name="families.sleeper")
async def sleeper() -> str:
    try:
        await fluvial.sleep("1d")
    except asyncio.CancelledError:
        await add(1, 1)
        raise
    return "slept"


@fluvial.workflow(name="families.parent_of_sleepers")
async def parent_of_sleepers(policy: Any) -> str:
    await fluvial.start(sleeper, options=StartOptions(on_parent_end=policy))
    await add(1, 2)
    return "left"


@fluvial.workflow(name="families.counter")
async def counter(number: int, most: int) -> str:
    await add(number, 1)
    if number < most:
        fluvial.continue_as_new(number + 1, most=most)
    return f"counted to {number}"


@fluvial.workflow(name="families.awaits_counter")
async def awaits_counter() -> str:
    return await fluvial.execute(counter, 1, most=4)


@fluvial.workflow(name="families.tagged")
async def tagged() -> None:
    await fluvial.set_tags({"phase": "working"})
    fluvial.publish({"step": 1})
    await wait()


@each_mode
def test_a_tree_of_runs_comes_together(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(tree, 3)
        assert await app.result(run_id) == 16
        page = await app.store.query_runs(RunQuery(limit=100))
        assert len(page.runs) == 15
        assert {run.status for run in page.runs} == {RunStatus.COMPLETED}
        roots = {run.meta["root"] for run in page.runs if run.meta}
        assert roots == {run_id}

    play_application(main, mode=mode)


@each_mode
def test_a_failed_child_is_an_error_with_its_cause(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        assert await app.result(await app.start(careful)) == "StepFailedError"

    play_application(main, mode=mode)


@pytest.mark.parametrize(
    ("policy", "end"),
    [("cancel", RunStatus.CANCELLED), ("terminate", RunStatus.TERMINATED), ("abandon", None)],
)
def test_a_child_is_closed_with_its_parent_as_its_policy_says(
    play_application: PlayOn, policy: str, end: RunStatus | None
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(parent_of_sleepers, policy)
        assert await app.result(run_id) == "left"
        child = child_run_id(run_id, 1, app.store.partitions)
        if end is None:
            await app.wait_for_kind(child, EventType.TIMER_SET)
            await app.send(MessageKind.WAKE, child)
            assert await app.result(child) == "slept"
        else:
            assert await app.finish(child) == end.value

    play_application(main)


def test_a_parent_that_is_terminated_closes_its_children_too(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(tree_of_sleep)
        child = child_run_id(run_id, 1, app.store.partitions)
        await app.wait_for_kind(run_id, EventType.CHILD_SCHEDULED)
        await app.send(MessageKind.TERMINATE, run_id)
        assert await app.finish(run_id) == "terminated"
        assert await app.finish(child) == "cancelled"
        assert EventType.STEP_COMPLETED in await app.kinds(child)  # its clean-up

    play_application(main)


@fluvial.workflow(name="families.tree_of_sleep")
async def tree_of_sleep() -> None:
    await fluvial.execute(sleeper)


@each_mode
def test_a_run_goes_on_as_new_ones_to_its_end(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(counter, 1, 5, options={"tags": {"a": "b"}, "retention_ms": 10**6})
        assert await app.result(run_id) == "counted to 5"
        first = await app.record(run_id)
        assert first.status is RunStatus.CONTINUED
        second = await app.record(continued_run_id(run_id))
        assert (second.tags, second.retention_ms) == ({"a": "b"}, 10**6)
        assert (second.meta["first"], second.meta["hops"]) == (run_id, 1)

    play_application(main, mode=mode)


def test_a_child_stays_as_long_as_its_parent_unless_its_start_says_otherwise(
    play_application: PlayOn,
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(parent_of_two, options={"retention_ms": 10**6})
        plain, other = await app.result(run_id)

        assert (await app.record(plain)).retention_ms == 10**6
        assert (await app.record(other)).retention_ms == 60_000

    play_application(main)


@fluvial.workflow(name="families.parent_of_two")
async def parent_of_two() -> list[str]:
    plain = await fluvial.start(leaf, 1)
    other = await fluvial.start(leaf, 2, options=StartOptions(retention="1m"))
    await plain.result()
    await other.result()
    return [plain.id, other.id]


@each_mode
def test_a_parent_waits_for_the_last_run_that_its_child_goes_on_as(
    play_application: PlayOn, mode: Mode
) -> None:
    async def main(app: Application) -> None:
        assert await app.result(await app.start(awaits_counter)) == "counted to 4"

    play_application(main, mode=mode)


def test_a_sleep_is_ended_early(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeper)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.send(MessageKind.WAKE, run_id, by="somebody")
        assert await app.result(run_id) == "slept"
        (fired,) = [e for e in await app.events(run_id) if e.type is EventType.TIMER_FIRED]
        assert fired.meta == {"early": True, "by": "somebody"}

    play_application(main)


def test_a_paused_run_stands_still_until_it_is_resumed(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeper)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.send(MessageKind.PAUSE, run_id, reason="look at it", by="somebody")
        await app.wait_for_status(run_id, RunStatus.PAUSED)
        assert (await app.record(run_id)).reason == "look at it"
        await app.send(MessageKind.WAKE, run_id)
        await app.wait_for_kind(run_id, EventType.TIMER_FIRED)
        assert (await app.record(run_id)).status is RunStatus.PAUSED

        await app.send(MessageKind.RESUME, run_id)
        assert await app.result(run_id) == "slept"
        assert (await app.record(run_id)).reason == ""

    play_application(main)


def test_a_run_begins_when_its_delay_is_over(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(leaf, 2, options={"delay_ms": 300})
        assert (await app.record(run_id)).status is RunStatus.PENDING
        async with asyncio.timeout(RENEW_SECONDS - 1):  # a renewal would find it, too
            assert await app.result(run_id) == 4
        created_ms = (await app.record(run_id)).created_ms
        assert (await app.events(run_id))[0].at_ms >= created_ms + 300

    play_application(main)


@pytest.mark.parametrize(
    ("kind", "end"), [(MessageKind.CANCEL, "cancelled"), (MessageKind.TERMINATE, "terminated")]
)
def test_a_run_that_has_not_begun_ends_at_once(
    play_application: PlayOn, kind: MessageKind, end: str
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(leaf, 2, options={"delay_ms": 10**8})
        await app.send(kind, run_id)
        assert await app.finish(run_id) == end
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    play_application(main)


def test_a_run_is_cancelled_at_its_deadline(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeper, options={"deadline_ms": 300})
        assert await app.finish(run_id) == "cancelled"
        (asked,) = [e for e in await app.events(run_id) if e.type is EventType.CANCEL_REQUESTED]
        assert asked.meta["reason"] == "deadline"

    play_application(main)


def test_tags_are_changed_from_inside_and_from_outside(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(tagged, options={"tags": {"team": "a", "old": "x"}})
        await app.wait_for_kind(run_id, EventType.STATE_PUBLISHED)
        assert (await app.record(run_id)).tags == {"team": "a", "old": "x", "phase": "working"}
        await app.send(MessageKind.TAG, run_id, tags={"team": "b", "old": None}, by="somebody")
        await app.wait_for_kind(run_id, EventType.TAGS_CHANGED)

        assert (await app.record(run_id)).tags == {"team": "b", "phase": "working"}
        await app.send(MessageKind.TERMINATE, run_id)
        await app.finish(run_id)

    play_application(main)


@fluvial.step(name="families.once")
async def once(what: str) -> str:
    executions.append(what)
    return what


@fluvial.step(name="families.picky", retries=0)
async def picky() -> str:
    if not repaired:
        raise ValueError("broken")
    return "repaired"


@fluvial.workflow(name="families.long")
async def long() -> list[Any]:
    chance, ident = fluvial.random(), fluvial.uuid4()
    first = await once("first")
    async with fluvial.Hook(str, token="families") as hook:
        second = await once("second")
        await asyncio.sleep(0.05)
        third = await picky()
        said = await hook
    return [chance, ident, first, second, third, said]


async def fork(app: Application, origin: str, cut: Cut) -> str:
    log = [event for event in await app.events(origin) if is_taken(event)]
    run_id = new_run_id(app.store.partitions)
    request = ResealRequest(
        run_id=origin,
        target=run_id,
        app=APP,
        workflow="families.long",
        events=[event.encode() for event in log[: cut.events]],
    )
    await app.store.claim_token(APP, "families", run_id)
    sealed = tuple(reseal(request, app.keys).events)
    options = {
        "run_id": run_id,
        "input": b"",
        "log": sealed,
        "turn": pack_turn(cut.consumed, bytes(8)),
        "meta": {"origin": origin},
    }
    return await app.start(long, options=options)


@each_mode
def test_a_fork_goes_on_from_the_step_that_failed(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        origin = await app.start(long)
        assert await app.finish(origin) == "failed"
        assert executions == ["first", "second"]
        repaired.append(True)
        log = [event for event in await app.events(origin) if is_taken(event)]
        run_id = await fork(app, origin, cut_before_failure(log))
        await app.wait_for_kind(run_id, EventType.STEP_COMPLETED, 3)
        sealed = app.keys.for_run(run_id).seal(encode("hello"), "hook", "families")
        sending = Payload(run_id=run_id, token="families", resume_id="r", sealed=sealed)
        assert await send_payload(app.store, sending) is SendOutcome.ACCEPTED

        chance, ident, *rest = await app.result(run_id)
        assert rest == ["first", "second", "repaired", "hello"]
        assert executions == ["first", "second"]  # what was finished did not run again
        again = await fork(app, run_id, cut_at_start(await app.events(run_id)))
        await app.wait_for_kind(again, EventType.STEP_COMPLETED, 3)
        body = Message(MessageKind.CANCEL, again).encode()
        await app.store.send(again, body)
        assert await app.finish(again) == "cancelled"
        kinds = await app.kinds(run_id)
        assert kinds.count(EventType.RUN_FORKED) == 1
        assert isinstance(chance, float)
        assert ident.version == 4

    executions.clear()
    repaired.clear()
    play_application(main, mode=mode)
    assert executions == ["first", "second", "first", "second"]
