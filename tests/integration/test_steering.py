"""Steering on the whole path: requests count in the order in which they were made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

import fluvial
from fluvial.events import Event, EventType
from fluvial_queue.contract import RunStatus
from fluvial_queue.messages import MessageKind
from tests.integration.in_process import Application

if TYPE_CHECKING:
    from tests.integration.conftest import PlayOn

PAUSE, RESUME = MessageKind.PAUSE, MessageKind.RESUME
STEERED = {
    EventType.RUN_PAUSED: RunStatus.PAUSED,
    EventType.RUN_RESUMED: RunStatus.RUNNING,
}


@fluvial.workflow(name="steering.sleeper")
async def sleeper() -> str:
    await fluvial.sleep("1d")
    return "slept"


def test_a_run_that_waits_for_its_time_begins_when_it_is_woken(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeper, options={"delay_ms": 86_400_000})
        await app.send(MessageKind.WAKE, run_id)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)
        await app.send(MessageKind.WAKE, run_id)

        assert await app.result(run_id) == "slept"
        assert await app.store.depth(range(app.store.partitions)) == (0, 0)

    play_application(main)


def test_a_run_is_woken_twice_before_it_begins_and_begins_once(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        run_id = await app.start(sleeper, options={"delay_ms": 86_400_000})
        await app.dispatcher.stop(1.0)
        for _ in range(2):
            await app.send(MessageKind.WAKE, run_id)
        await app.restart("gateway", 0.0)
        await app.wait_for_kind(run_id, EventType.TIMER_SET)

        assert (await app.kinds(run_id)).count(EventType.RUN_STARTED) == 1

    play_application(main)


@pytest.mark.parametrize("before", ["pending", "running", "paused"])
@pytest.mark.parametrize(
    ("requests", "ends_as"),
    [
        ([PAUSE, RESUME], RunStatus.RUNNING),
        ([RESUME, PAUSE], RunStatus.PAUSED),
        ([PAUSE, RESUME, PAUSE], RunStatus.PAUSED),
        ([PAUSE, PAUSE, RESUME], RunStatus.RUNNING),
    ],
    ids=["pause-resume", "resume-pause", "pause-resume-pause", "pause-pause-resume"],
)
def test_the_last_of_several_requests_decides(
    play_application: PlayOn, before: str, requests: Sequence[MessageKind], ends_as: RunStatus
) -> None:
    async def main(app: Application) -> None:
        if before == "pending":
            await app.dispatcher.stop(1.0)
            run_id = await app.start(sleeper)
        else:
            run_id = await app.start(sleeper)
            await app.wait_for_kind(run_id, EventType.TIMER_SET)
            if before == "paused":
                await app.send(PAUSE, run_id)
                await app.wait_for_status(run_id, RunStatus.PAUSED)
            await app.dispatcher.stop(1.0)
        for kind in requests:
            await app.send(kind, run_id)
        await app.restart("gateway", 0.0)
        await app.wait_until(run_id, lambda _, log: _last_steered(log) is ends_as)
        await app.send(MessageKind.TAG, run_id, tags={"all of them": "were read"})
        await app.wait_for_kind(run_id, EventType.TAGS_CHANGED)
        # A pause behind a resume has an entry of its own, in front of which the tag may stand.
        await app.wait_for_status(run_id, ends_as)

        assert (await app.store.depth(range(app.store.partitions)))[0] == 0

    play_application(main)


def _last_steered(log: Sequence[Event]) -> RunStatus | None:
    """Return the status that the last request that had an effect has left."""
    steered = [STEERED[event.type] for event in log if event.type in STEERED]
    return steered[-1] if steered else None
