"""Forks and reruns on the whole path: what they take over, where they go on, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import fluvial
from fluvial.codec import encode
from fluvial.errors import RunClosedError, StartConflictError
from fluvial.events import EventType
from fluvial.hook_tokens import named_token
from fluvial.registry import Registry, registry
from fluvial.testing import Mode
from fluvial.workflows import Workflow
from fluvial_gateway.forks import MAX_LOG_EVENTS, ForkPlan
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Arguments
from fluvial_queue.contract import RunStatus, SendOutcome
from fluvial_queue.cuts import NoFailedStepError, StepNotFoundError
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.messages import MessageKind
from tests.integration.forking import NEW, OLD, Forking
from tests.integration.in_process import Application, each_mode

if TYPE_CHECKING:
    from tests.integration.conftest import PlayOn

executed: list[str] = []
repaired: list[bool] = []
released: list[asyncio.Event] = []  # of the loop of the test that runs


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    for each in (executed, repaired, released):
        each.clear()


@fluvial.step(name="forks.first")
async def first(what: str = "first") -> str:
    executed.append(what)
    return what


@fluvial.step(name="forks.picky", retries=0)
async def picky() -> str:
    executed.append("picky")
    if not repaired:
        raise ValueError("broken")
    return "repaired"


@fluvial.step(name="forks.patient")
async def patient() -> str:
    executed.append("patient")
    await released[-1].wait()
    return "patient"


@fluvial.workflow(name="forks.failing")
async def failing(name: str = "nobody") -> list[Any]:
    fluvial.publish(name)
    chance = fluvial.random()
    return [chance, name, await first(), await asyncio.gather(first("beside"), picky())]


@fluvial.workflow(name="forks.ending")
async def ending() -> list[str]:
    return [await first(), await picky()]


@fluvial.workflow(name="forks.approval")
async def approval(token: str | None) -> list[Any]:
    done = await first()
    async with fluvial.Hook(str, token=token) as hook:
        return [done, await first("second"), await patient(), await hook]


@fluvial.workflow(name="forks.talking")
async def talking() -> list[str]:
    async with fluvial.Hook(str, name="said") as hook:
        return [await first(), await patient(), await hook]


@fluvial.step(name="forks.note")
async def note(number: float) -> float:
    executed.append("note")
    return number


@fluvial.step(name="forks.slow")
async def slow() -> str:
    if not repaired:
        await asyncio.sleep(60)
    return "slow"


@fluvial.workflow(name="forks.waiting")
async def waiting() -> list[Any]:
    drawn = fluvial.random()
    async with fluvial.Hook(str) as hook:
        nap, beside = asyncio.create_task(asyncio.sleep(0.2)), asyncio.create_task(slow())
        noted = await note(drawn)
        mended = await picky()
        await nap
        return [drawn == noted, mended, await beside, await hook]


@fluvial.workflow(name="forks.child")
async def child() -> str:
    return await patient()


@fluvial.workflow(name="forks.parent")
async def parent() -> list[str]:
    run = await fluvial.start(child)
    return [await first(), await first("second"), await run.result()]


@fluvial.workflow(name="forks.late")
async def late() -> str:
    try:
        async with asyncio.timeout(0.03):
            return await patient()
    except TimeoutError:
        return await first("too late")


async def waiting_at(app: Application, run_id: str, step: str) -> None:
    """Wait until a run executes a step."""
    while step not in executed:
        await app.instances.started_next()
    await app.wait_for_kind(run_id, EventType.STEP_SCHEDULED)


@each_mode
def test_the_step_that_failed_is_retried_in_a_fork(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        options = {"tags": {"team": "a"}, "retention_ms": 9_000_000, "meta": {"priority": 3}}
        origin = await app.start(failing, "somebody", options=options)
        assert await app.finish(origin) == "failed"
        before = await app.events(origin)
        executed.clear()
        repaired.append(True)
        run_id = await forking.fork(origin, None)
        chance, *rest = await app.result(run_id)

        assert rest == ["somebody", "first", ["beside", "repaired"]]
        assert executed == ["picky"]
        record = await app.record(run_id)
        assert (record.tags, record.retention_ms) == ({"team": "a"}, 9_000_000)
        assert record.meta["priority"] == 3
        assert record.state_at is not None
        (forked,) = [e for e in await app.events(run_id) if e.type is EventType.RUN_FORKED]
        assert (forked.meta["origin"], forked.meta["by"]) == (origin, "somebody")
        assert await app.events(origin) == before  # a terminal state is final
        again = await forking.fork(run_id, "forks.picky")
        assert (await app.result(again))[0] == chance  # also in a fork of a fork

    play_application(main, mode=mode)


def test_a_fork_goes_on_with_the_code_of_the_deployment_that_is_named(
    play_application: PlayOn,
) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)

        async def fixed() -> list[str]:
            return [await first(), await first("instead")]

        functions = Registry()
        for step in registry.steps.values():
            functions.add_step(step)
        functions.add_workflow(Workflow(fixed, ending.name))
        app.instances.code[NEW] = functions
        origin = await app.start(ending, deployment=OLD)
        assert await app.finish(origin) == "failed"
        executed.clear()
        run_id = await forking.fork(origin, "forks.picky", deployment="latest")

        assert await app.result(run_id) == ["first", "instead"]
        assert executed == ["instead"]
        assert (await app.record(run_id)).deployment == NEW

    play_application(main)


@each_mode
def test_a_live_run_is_forked_and_goes_on_by_itself(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        released.append(asyncio.Event())
        forking = await Forking.of(app)
        origin = await app.start(late)
        assert await app.result(origin) == "too late"
        executed.clear()
        released[-1].set()
        assert await app.result(await forking.fork(origin, "forks.patient")) == "patient"

        released.append(asyncio.Event())
        executed.clear()
        live = await app.start(child)
        await waiting_at(app, live, "patient")
        run_id = await forking.fork(live, "forks.patient")
        released[-1].set()
        assert [await app.result(live), await app.result(run_id)] == ["patient"] * 2
        assert executed == ["patient"] * 2

    play_application(main, mode=mode)


@pytest.mark.parametrize("token", [None, "chosen"])
def test_hooks_that_are_open_stay_open_in_the_fork_of_a_run_that_has_ended(
    play_application: PlayOn, token: str | None
) -> None:
    async def main(app: Application) -> None:
        released.append(asyncio.Event())
        forking = await Forking.of(app)
        origin = await app.start(approval, token)
        await waiting_at(app, origin, "patient")
        opened = [e for e in await app.events(origin) if e.type is EventType.HOOK_OPENED]
        handed_out = str(opened[0].meta["token"])

        with pytest.raises(ProblemError, match=f"{origin} has the token") as refused:
            await forking.fork(origin, "forks.patient")
        assert refused.value.problem_code == "hook_conflict"
        await app.send(MessageKind.TERMINATE, origin)
        assert await app.finish(origin) == "terminated"
        with pytest.raises(RunClosedError, match=origin):
            await forking.resume(handed_out, "too early")
        run_id = await forking.fork(origin, "forks.patient")
        await app.wait_for_kind(run_id, EventType.RUN_FORKED)
        assert await forking.resume(handed_out, "yes") == run_id
        released[-1].set()
        assert await app.result(run_id) == ["first", "second", "patient", "yes"]
        with pytest.raises(RunClosedError):
            await forking.resume(handed_out, "again")

    play_application(main)


def test_a_fork_goes_on_with_all_that_its_origin_had_open(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        origin = await app.start(waiting)
        assert await app.finish(origin) == "failed"
        opened = [e for e in await app.events(origin) if e.type is EventType.HOOK_OPENED]
        repaired.append(True)

        run_id = await forking.fork(origin, None)
        await app.wait_for_kind(run_id, EventType.RUN_FORKED)
        token = opened[0].meta["token"]
        sealed = app.keys.for_run(run_id).seal(encode("hello"), "hook", token)
        sending = Payload(run_id=run_id, token=token, resume_id="r", sealed=sealed)
        assert await send_payload(app.store, sending) is SendOutcome.ACCEPTED
        assert await app.result(run_id) == [True, "repaired", "slow", "hello"]
        assert executed.count("note") == 1  # what had ended does not run again

    play_application(main)
    executed.clear()


def test_a_hook_with_a_name_is_each_run_s_own(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        released.append(asyncio.Event())
        forking = await Forking.of(app)
        origin = await app.start(talking)
        await waiting_at(app, origin, "patient")
        run_id = await forking.fork(origin, "forks.patient")
        await app.wait_for_kind(run_id, EventType.RUN_FORKED)
        released[-1].set()
        for each in (origin, run_id):
            assert await forking.resume(named_token(each, "said"), each) == each
        results = [await app.result(each) for each in (origin, run_id)]

        assert results == [["first", "patient", each] for each in (origin, run_id)]

    play_application(main)


def test_a_run_that_waits_for_its_children_there_is_not_forked(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        released.append(asyncio.Event())
        forking = await Forking.of(app)
        origin = await app.start(parent)
        await app.wait_for_kind(origin, EventType.STEP_COMPLETED, 2)

        with pytest.raises(ProblemError, match="waits there for child runs") as refused:
            await forking.fork(origin, 3)
        assert refused.value.problem_code == "open_children"
        released[-1].set()
        run_id = await forking.fork(origin, 0)
        assert await app.result(run_id) == ["first", "second", "patient"]
        assert await app.result(origin) == ["first", "second", "patient"]
        (asked,) = [e for e in await app.events(run_id) if e.type is EventType.CHILD_SCHEDULED]
        assert (await app.record(asked.meta["run"])).meta["parent"] == run_id

    play_application(main)


def test_what_cannot_be_forked_is_told(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        delayed = await app.start(failing, options={"delay_ms": 86_400_000})
        with pytest.raises(ProblemError, match="did nothing yet"):
            await forking.fork(delayed, None)
        repaired.append(True)
        origin = await app.start(failing)
        await app.result(origin)
        with pytest.raises(NoFailedStepError, match="its steps: "):
            await forking.fork(origin, None)
        with pytest.raises(StepNotFoundError, match="no step 99; its steps: "):
            await forking.fork(origin, 99)
        app.instances.is_broken = True
        with pytest.raises(ProblemError, match="import_failed") as refused:
            await forking.fork(origin, 0)
        assert refused.value.problem_code == "not_resealed"
        app.instances.is_broken = False
        long = replace(await app.record(origin), events=MAX_LOG_EVENTS + 1)
        with pytest.raises(ProblemError, match="20001 events; a fork takes at most 20000"):
            await forking.forks.fork(long, ForkPlan(step=0), by="")

    play_application(main)


def test_one_key_makes_one_fork_and_one_rerun(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        origin = await app.start(failing)
        assert await app.finish(origin) == "failed"
        forks = [await forking.fork(origin, None, key="k") for _ in range(2)]
        reruns = [await forking.rerun(origin, key="k") for _ in range(2)]
        others = [await forking.fork(origin, None, key="l"), await forking.fork(origin, None)]

        assert (forks[0], reruns[0]) == (forks[1], reruns[1])
        assert len({*forks, *reruns, *others}) == 4
        with pytest.raises(StartConflictError):
            await forking.fork(origin, 0, key="k")
        with pytest.raises(StartConflictError):
            await forking.rerun(origin, key="k", deployment="latest")
        together = [forking.fork(origin, None, key="m") for _ in range(3)]
        assert len(set(await asyncio.gather(*together))) == 1

    play_application(main)


def test_a_run_runs_again_with_the_same_input_or_another(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        options = {"tags": {"team": "a"}, "deadline_ms": 60_000, "meta": {"priority": 3}}
        origin = await app.start(failing, "somebody", options=options)
        assert await app.finish(origin) == "failed"
        repaired.append(True)
        same = await forking.rerun(origin)
        other = await forking.rerun(
            origin, arguments=Arguments([], {"name": "anybody"}), deployment=NEW
        )

        assert (await app.result(same))[1] == "somebody"
        assert (await app.result(other))[1] == "anybody"
        record = await app.record(same)
        assert (record.meta["rerun_of"], record.tags) == (origin, {"team": "a"})
        assert record.meta["priority"] == 3
        assert (await app.record(other)).deployment == NEW
        assert (await app.record(origin)).status is RunStatus.FAILED

    play_application(main)


def test_a_run_that_has_not_begun_runs_again_at_once(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        repaired.append(True)
        delayed = await app.start(failing, "later", options={"delay_ms": 86_400_000})
        run_id = await forking.rerun(delayed)

        assert (await app.result(run_id))[1] == "later"
        assert (await app.record(delayed)).status is RunStatus.PENDING

    play_application(main)
