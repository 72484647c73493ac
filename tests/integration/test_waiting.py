"""Why a run waits, for real runs in every situation that there is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import pytest

import fluvial
from fluvial import Hook, continue_as_new, execute, start, step, workflow
from fluvial.events import Event, EventType
from fluvial.ids import continued_run_id
from fluvial_gateway.activity import Room, State
from fluvial_gateway.awaited_text import commands, sentence
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.explaining import Explaining, Explanation
from fluvial_gateway.fingerprints import Fingerprints
from fluvial_gateway.invocations import Unavailable
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunStatus
from fluvial_queue.messages import MessageKind
from tests.integration.in_process import Application

if TYPE_CHECKING:
    from tests.integration.conftest import PlayOn

_SPAN = re.compile(r"\b\d+ (ms|s|min|h|d)\b( \d+ (s|min|h)\b)?")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
gates: dict[str, asyncio.Event] = {}


@step(name="waiting.work")
async def work(gate: str = "never") -> None:
    await gates.get(gate, asyncio.Event()).wait()


@step(name="waiting.flaky", backoff="1h")
async def flaky() -> None:
    raise ConnectionError("not now")


@workflow(name="waiting.working")
async def working() -> None:
    await work()


@workflow(name="waiting.trying")
async def trying() -> None:
    await flaky()


@workflow(name="waiting.sleeping")
async def sleeping() -> None:
    await fluvial.sleep("3h")


@workflow(name="waiting.asking")
async def asking(token: str | None) -> None:
    async with asyncio.timeout(7200), Hook[str](token=token) as hook:
        await hook


@workflow(name="waiting.parent")
async def parent(depth: int) -> None:
    await (execute(parent, depth - 1) if depth else execute(sleeping))


@workflow(name="waiting.going_on")
async def going_on(rounds: int) -> None:
    if rounds:
        continue_as_new(rounds - 1)
    await fluvial.sleep("3h")


@workflow(name="waiting.parent_of_one_that_goes_on")
async def parent_of_one_that_goes_on() -> None:
    await execute(going_on, 2)


@workflow(name="waiting.many")
async def many() -> None:
    child = await start(sleeping)
    async with Hook[str](token="waiting:many") as hook:
        await asyncio.gather(
            work(), work(), fluvial.sleep("5h"), fluvial.sleep("3h"), child.result(), hook
        )


@workflow(name="waiting.careful")
async def careful() -> None:
    try:
        await fluvial.sleep("3h")
    finally:
        await work()


@workflow(name="waiting.done")
async def done() -> None:
    """End at once."""


@workflow(name="waiting.failing")
async def failing() -> None:
    raise ValueError("no")


class Rooms:
    """What the router would say."""

    def __init__(self) -> None:
        self.known: Room | None = None

    def room(self, deployment: str, *, isolated: bool = False) -> Room | None:
        return self.known


async def explained(app: Application, run_id: str) -> Explanation:
    runs = Runs(app.store, Catalogue(app.store), app.dispatcher, Fingerprints(b"k" * 32))
    explaining = Explaining(runs, app.store, app.dispatcher, Rooms())
    return await explaining.explain(await app.record(run_id))


async def told(app: Application, run_id: str, *, shows_tokens: bool = False) -> str:
    """The sentence about a run, with T for times, S for spans and RUN for its id."""
    said = sentence(await explained(app, run_id), shows_tokens=shows_tokens)
    return _SPAN.sub("S", _TIME.sub("T", said)).replace(run_id, "RUN")


async def reach(app: Application, run_id: str, state: State, step_id: int = 0) -> None:
    """Wait until an invocation of a run has come so far."""

    async def has_come() -> bool:
        activities = app.dispatcher.activities(run_id) or ()
        return any((a.state, a.step_id) == (state, step_id) for a in activities)

    await until(has_come)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something of which no event tells."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - that is what it is for
            await asyncio.sleep(0)


async def begun(app: Application, run_id: str) -> None:
    """Wait until a run that another one starts has begun."""

    async def exists() -> bool:
        return await app.store.read_run(run_id) is not None

    await until(exists)
    await app.wait_for_kind(run_id, EventType.RUN_STARTED)


def kinds(explanation: Explanation) -> Sequence[str]:
    return [awaited.kind for awaited in explanation.awaited]


def test_a_run_whose_start_is_delayed(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        options = {
            "delay_ms": 10_800_000,
            "meta": {"start_at": await app.store.now_ms() + 10_800_000},
        }
        run_id = await app.start(done, options=options)

        assert await told(app, run_id) == (
            "It begins at T (in S), as its start is delayed;"
            " `fluvial runs wake RUN` lets it begin now."
        )

    play_application(main)


def test_a_run_whose_step_is_executed(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(working)
        await reach(app, run_id, "executing", 1)

        assert await told(app, run_id) == (
            "It waits for its step waiting.work (operation 1), executing for S (since T) on ins0."
        )

    play_application(main)


def test_a_run_whose_step_is_tried_again_later(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(trying)
        await app.wait_for_kind(run_id, EventType.STEP_RETRYING)

        assert await told(app, run_id) == (
            "It executes its step waiting.flaky (operation 1, attempt 2) again at T (in S), as"
            " attempt 1 failed (exception); `fluvial runs retry RUN` makes it now."
        )

    play_application(main)


def test_a_run_that_sleeps(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeping)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)

        assert await told(app, run_id) == (
            "It sleeps until T (in S) (timer 1); `fluvial runs wake RUN --timer 1` ends that now."
        )

    play_application(main)


def test_a_run_that_waits_for_a_payload_and_has_a_timeout(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(asking, "waiting:asked")
        await app.wait_for_kind(run_id, EventType.HOOK_OPENED)

        assert await told(app, run_id) == (
            "It waits for a payload for its hook waiting:asked, open for S (since T);"
            " `fluvial hooks resume waiting:asked JSON --app app` delivers one;"
            " 1 other thing is open too: a timeout at T (in S)."
        )

    play_application(main)


def test_a_made_token_is_told_to_nobody_who_may_not_read_data(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(asking, None)
        opened = await app.wait_until(run_id, lambda _, log: _opened(log) is not None)
        token = _opened(opened)
        assert token is not None
        explanation = await explained(app, run_id)

        hidden = await told(app, run_id)
        assert "its hook 2, whose token is secret" in hidden
        assert "; `fluvial runs why RUN --data` shows it; " in hidden
        assert token not in sentence(explanation, shows_tokens=False)
        assert commands(explanation.first, explanation.run, shows_tokens=False) == [
            f"fluvial runs why {run_id} --data"
        ]
        assert f"its hook {token}, open" in sentence(explanation, shows_tokens=True)
        assert f"hooks resume {token} JSON" in sentence(explanation, shows_tokens=True)

    play_application(main)


def _opened(log: Sequence[Event]) -> str | None:
    return next((e.meta["token"] for e in log if e.type is EventType.HOOK_OPENED), None)


def test_a_chain_of_children_is_followed_to_its_end(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(parent, 1)
        child = await _child_of(app, run_id)
        leaf = await _child_of(app, child)
        await app.wait_for_kind(leaf, EventType.TIMER_SET)

        assert await told(app, run_id) == (
            f"It waits for its child {child} (waiting.parent), which waits for its child {leaf}"
            " (waiting.sleeping), which sleeps until T (in S) (timer 1);"
            f" `fluvial runs wake {leaf} --timer 1` ends that now."
        )
        assert (await explained(app, run_id)).leaf.run.run_id == leaf

    play_application(main)


async def _child_of(app: Application, run_id: str) -> str:
    """Return a run's one child, once it has begun."""
    await app.wait_for_kind(run_id, EventType.CHILD_SCHEDULED)
    (scheduled,) = [e for e in await app.events(run_id) if e.type is EventType.CHILD_SCHEDULED]
    child = str(scheduled.meta["run"])
    await begun(app, child)
    return child


def test_a_child_that_went_on_as_another_run_is_followed(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(parent_of_one_that_goes_on)
        await app.wait_for_kind(run_id, EventType.CHILD_SCHEDULED)
        (scheduled,) = [e for e in await app.events(run_id) if e.type is EventType.CHILD_SCHEDULED]
        child = str(scheduled.meta["run"])
        last = continued_run_id(continued_run_id(child))
        await begun(app, last)
        await app.wait_for_kind(last, EventType.TIMER_SET)

        assert await told(app, run_id) == (
            f"It waits for its child {child} (waiting.going_on), now {last}, which sleeps until T"
            f" (in S) (timer 1); `fluvial runs wake {last} --timer 1` ends that now."
        )
        assert await told(app, child) == (
            f"It went on as {continued_run_id(child)} at T (now);"
            f" `fluvial runs why {continued_run_id(child)}` says how that one stands."
        )

    play_application(main)


def test_of_several_things_the_first_to_come_is_told_and_how_many_others(
    play_application: PlayOn,
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(many)
        await app.wait_for_kind(run_id, EventType.TIMER_SET, 2)
        for operation in (3, 4):
            await reach(app, run_id, "executing", operation)
        explanation = await explained(app, run_id)

        assert kinds(explanation) == ["step", "step", "sleep", "sleep", "child", "hook"]
        assert [awaited.operation for awaited in explanation.awaited[2:4]] == [6, 5]
        assert "; 5 other things are open too: its step waiting.work" in await told(app, run_id)
        assert (await told(app, run_id)).endswith("a sleep until T (in S), 2 more.")

    play_application(main)


def test_a_run_that_somebody_has_paused(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeping)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.send(MessageKind.PAUSE, run_id, reason="a look at it", by="ops")
        await app.wait_for_status(run_id, RunStatus.PAUSED)

        assert await told(app, run_id) == (
            "It was paused by ops at T (now) (a look at it);"
            " `fluvial runs resume RUN` lets it go on;"
            " 1 other thing is open too: a sleep until T (in S)."
        )
        assert app.observer.pauses == [""]

    play_application(main)


def test_a_run_that_is_paused_as_its_code_cannot_be_imported(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        app.instances.is_broken = True
        run_id = await app.start(sleeping)
        await app.wait_for_status(run_id, RunStatus.PAUSED)

        assert await told(app, run_id) == (
            "It was paused at T (now) (import_failed: a test's); promote code that can be imported,"
            " then `fluvial runs resume RUN --deployment latest`."
        )
        assert (await explained(app, run_id)).first.code == "import_failed"

    play_application(main)


def test_a_run_that_is_paused_as_its_step_was_cut_off_again_and_again(
    play_application: PlayOn,
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(working)
        for lost in range(1, 6):
            await reach(app, run_id, "executing", 1)
            app.instances.kill_all()
            await app.wait_for_kind(run_id, EventType.ATTEMPT_LOST, lost)
        await app.wait_for_status(run_id, RunStatus.PAUSED)

        assert await told(app, run_id) == (
            "It was paused at T (now) (step waiting.work was cut off 5 times: instance_died);"
            " once the cause is mended, `fluvial runs resume RUN` gives it its chances again."
        )
        assert (await explained(app, run_id)).first.code == "poison"
        assert app.observer.pauses == ["poison"]

    play_application(main)


def test_a_run_whose_invocation_is_refused_for_now(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        app.instances.refusal = Unavailable("capacity", "no memory is left", True)
        run_id = await app.start(working)
        await reach(app, run_id, "refused")

        assert await told(app, run_id) == (
            "It waits for its own code, which could not be executed (capacity: no memory is left)"
            " and is tried again soon."
        )

    play_application(main)


def test_a_run_whose_deployment_is_at_its_limit(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        first = await app.start(working)
        await reach(app, first, "executing", 1)
        second = await app.start(working)
        await reach(app, second, "place")

        assert await told(app, second) == (
            "It waits for a place for its own code, as dpl has as many invocations under way as it"
            " may."
        )

    play_application(main, max_in_flight=1)


def test_a_run_whose_partition_nobody_owns(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeping)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.dispatcher.stop(1.0)

        assert await told(app, run_id) == (
            "It stands still, as no gateway owns its partition; a gateway that runs takes it over"
            " within half a minute; 1 other thing is open too: a sleep until T (in S)."
        )
        await app.restart("gateway", 0.0)

    play_application(main)


def test_a_run_that_another_gateway_owns(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(working)
        await reach(app, run_id, "executing", 1)
        await app.dispatcher.stop(0.2)
        for partition in range(app.store.partitions):
            await app.store.acquire(partition, owner="elsewhere", ttl_ms=60_000)
        explanation = await explained(app, run_id)

        assert explanation.owner == "elsewhere"
        assert await told(app, run_id) == (
            "It waits for its step waiting.work (operation 1), which is up to the gateway"
            " elsewhere, for S (since T)."
        )

    play_application(main)


def test_a_run_whose_next_step_waits_for_the_gateway_that_is_stopping(
    play_application: PlayOn,
) -> None:
    async def main(app: Application) -> None:
        gates["first"] = asyncio.Event()
        gates["other"] = asyncio.Event()
        run_id = await app.start(two_steps)
        await reach(app, run_id, "executing", 1)
        await reach(app, run_id, "executing", 2)
        stopping = asyncio.create_task(app.dispatcher.stop(5.0))
        await asyncio.sleep(0)
        gates["first"].set()
        await reach(app, run_id, "held", 3)

        waiting = [a for a in (await explained(app, run_id)).awaited if a.operation == 3]
        assert [awaited.state for awaited in waiting] == ["held"]
        gates["other"].set()
        await stopping
        await app.restart("gateway", 0.0)

    play_application(main)


@workflow(name="waiting.two_steps")
async def two_steps() -> None:
    async def chain() -> None:
        await work("first")
        await work("second")

    await asyncio.gather(chain(), work("other"))


def test_a_cancelled_run_that_cleans_up(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(careful)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.send(MessageKind.CANCEL, run_id, reason="wrong order")
        await reach(app, run_id, "executing", 2)

        assert await told(app, run_id) == (
            "It was asked to cancel at T (now) (wrong order), cleans up, and waits for its step"
            " waiting.work (operation 2), executing for S (since T) on ins0."
        )

    play_application(main)


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        (done, "It completed at T (now) and waits for nothing."),
        (failing, "It failed at T (now) and waits for nothing."),
    ],
)
def test_a_run_that_has_ended(
    play_application: PlayOn, ends: fluvial.Workflow[[], None], said: str
) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(ends)
        await app.finish(run_id)

        assert await told(app, run_id) == said

    play_application(main)
