"""Payloads that race with the opening and closing of hooks, with cancels, and with new owners: one
that was accepted is recorded once, unless its run ends first; one that was refused never is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import fluvial
from fluvial.codec import encode
from fluvial.events import EventType
from fluvial.hook_tokens import named_token
from fluvial.testing import Mode
from fluvial_queue.contract import SendOutcome
from fluvial_queue.hook_sends import Payload, send_payload
from fluvial_queue.messages import MessageKind
from tests.integration.in_process import APP, Application, each_mode

PlayOn = Callable[..., Application]
RESUMES = 300
AT_ONCE = 12
TOKEN = "race"
STOP = "stop"
TAKEN = frozenset({SendOutcome.ACCEPTED, SendOutcome.DUPLICATE})


@fluvial.workflow(name="races.room")
async def room() -> list[str]:
    """Opens its hook again and again; each time it takes up to three payloads."""
    taken: list[str] = []
    while True:
        async with fluvial.Hook(str, name="say") as hook:
            for _ in range(len(taken) % 3 + 1):
                word = await hook
                if word == STOP:
                    return taken
                taken.append(word)


@fluvial.workflow(name="races.rival")
async def rival() -> list[str]:
    """Takes one payload whenever no other run holds the token."""
    taken: list[str] = []
    while True:
        async with fluvial.Hook(str, token=TOKEN) as hook:
            if await hook.conflict() is None:
                word = await hook
                if word == STOP:
                    return taken
                taken.append(word)
        await fluvial.sleep(0.001)


@dataclass
class Race:
    """What was sent to which run, and what became of it."""

    app: Application
    chance: random.Random
    accepted: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    refused: set[str] = field(default_factory=set[str])

    async def send(self, run_id: str, token: str, word: str, resume_id: str) -> None:
        sealed = self.app.keys.for_run(run_id).seal(encode(word), "hook", token)
        payload = Payload(run_id=run_id, token=token, resume_id=resume_id, sealed=sealed)
        outcome = await send_payload(self.app.store, payload)
        if outcome in TAKEN:
            self.accepted.setdefault(run_id, set()).add(resume_id)
            return
        self.refused.add(f"{run_id} {resume_id}")

    async def resume(self, where: Callable[[], Awaitable[tuple[str, str]]], number: int) -> None:
        """Send one payload, now and then twice at once."""
        for _ in range(self.chance.randrange(30)):
            await asyncio.sleep(0)
        run_id, token = await where()
        word = f"r{number}"
        again = self.chance.randrange(4) == 0
        await asyncio.gather(*(self.send(run_id, token, word, word) for _ in range(1 + again)))

    async def run(self, where: Callable[[], Awaitable[tuple[str, str]]], victim: str) -> None:
        """Send all payloads while owners change, instances die, and one run is cancelled."""
        for first in range(0, RESUMES, AT_ONCE):
            batch = range(first, min(first + AT_ONCE, RESUMES))
            racing = asyncio.gather(*(self.resume(where, number) for number in batch))
            if RESUMES // 2 in batch:
                await self.app.send(MessageKind.CANCEL, victim)
            match self.chance.randrange(6):
                case 0:
                    await self.app.restart(f"owner {first}", 1.0)
                case 1:
                    self.app.instances.kill_all()
                case 2:
                    self.app.instances.evict_all()
                case _:
                    pass
            await racing

    async def check(self, run_id: str) -> list[str]:
        """Hold a run that has ended against what was sent; return the recorded payloads."""
        log = await self.app.events(run_id)
        opened: dict[int, str] = {}
        recorded: list[str] = []
        for event in log:
            if event.type is EventType.HOOK_OPENED:
                opened[event.id] = event.meta["token"]
            elif event.type is EventType.HOOK_RECEIVED:
                assert opened[event.id] == event.meta["token"]
                recorded.append(event.meta["resume"])
        accepted = self.accepted.get(run_id, set())
        assert len(recorded) == len(set(recorded)), "recorded twice"
        assert set(recorded) <= accepted, "refused, and recorded"
        if log[-1].type is EventType.RUN_COMPLETED:
            lost = accepted - set(recorded)
            assert all(resume.startswith(STOP) for resume in lost), "accepted, and lost"
            taken = await self.app.result(run_id)
            order = [resume for resume in recorded if resume in set(taken)]
            assert taken == order, "taken in another order, or twice"
        return recorded


async def _stopped(
    race: Race, run_id: str, where: Callable[[], Awaitable[tuple[str, str]]]
) -> None:
    """Tell runs to stop until this one has."""
    number = 0
    async with asyncio.timeout(60):
        while not (record := await race.app.record(run_id)).status.is_terminal:
            target, token = await where()
            number += 1
            await race.send(target, token, STOP, f"{STOP} {run_id} {number}")
            await race.app.dispatcher.wait_for_events(run_id, record.events, 1.0)


@each_mode
def test_payloads_race_with_hooks_that_open_and_close(play_application: PlayOn, mode: Mode) -> None:
    async def main(app: Application) -> None:
        race = Race(app, random.Random(9))
        runs = [await app.start(room) for _ in range(5)]

        async def anywhere() -> tuple[str, str]:
            run_id = race.chance.choice(runs)
            return run_id, named_token(run_id, "say")

        await race.run(anywhere, victim=runs[0])
        recorded = 0
        for run_id in runs:

            async def here(run_id: str = run_id) -> tuple[str, str]:
                return run_id, named_token(run_id, "say")

            await _stopped(race, run_id, here)
            recorded += len(await race.check(run_id))
        assert (await app.record(runs[0])).status.value == "cancelled"
        assert recorded > RESUMES // 4
        assert race.refused

    play_application(main, mode=mode)


def test_payloads_race_with_runs_that_hand_a_token_on(play_application: PlayOn) -> None:
    async def main(app: Application) -> None:
        race = Race(app, random.Random(9))
        runs = [await app.start(rival) for _ in range(3)]

        async def holder() -> tuple[str, str]:
            found = await app.store.token_holder(APP, TOKEN)
            return found or runs[-1], TOKEN

        await race.run(holder, victim=runs[0])
        recorded = 0
        for run_id in runs:
            await _stopped(race, run_id, holder)
        for run_id in runs:
            recorded += len(await race.check(run_id))
        assert (await app.record(runs[0])).status.value == "cancelled"
        assert recorded > RESUMES // 10
        assert race.refused

    play_application(main)
