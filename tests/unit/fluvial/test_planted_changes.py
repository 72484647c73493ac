"""Random workflows with random changes: those that matter are caught, the others raise no alarm.

`FLUVIAL_SEEDS` sets how many workflows of each kind are played.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

import fluvial
from fluvial.checks import CheckReport, CheckRequest
from fluvial.events import INPUTS, OUTPUTS, Event, EventType, decode_event
from fluvial.hooks import Hook
from fluvial.invocations import TurnRequest
from fluvial.registry import registry
from fluvial.steps import Step, step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, RUN, Player

SEEDS = int(os.environ.get("FLUVIAL_SEEDS", "60"))
NAMES = ("planted.a", "planted.b", "planted.c")

Operation = tuple[Any, ...]
Program = tuple[Operation, ...]
Body = Callable[[], Coroutine[Any, Any, int]]


def _make(name: str) -> Step[[int], int]:
    @step(name=name)
    async def body(number: int) -> int:
        return number + 1

    return body


STEPS = {name: _make(name) for name in NAMES}


@pytest.fixture(autouse=True)
def registered(clean_registry: None) -> None:
    for each in STEPS.values():
        registry.add_step(each)


def _program(chance: Random) -> Program:
    return tuple(_operation(chance) for _ in range(chance.randint(2, 7)))


def _operation(chance: Random) -> Operation:
    name, other = chance.choice(NAMES), chance.choice(NAMES)
    return chance.choice(
        [
            ("step", name),
            ("sleep", chance.randint(1, 9)),
            ("gather", name, other),
            ("group", name, chance.randint(1, 9)),
            ("timeout", chance.randint(2, 9) * 1000, name),
            ("expire", name),
            ("hook", f"token {chance.randint(1, 3)}", name),
        ]
    )


def _changed(program: Program, chance: Random) -> Program:
    """Change one place of a program."""
    at = chance.randrange(len(program))
    before, after = program[:at], program[at + 1 :]
    match chance.choice(("replace", "insert", "delete", "swap")):
        case "replace":
            return (*before, _operation(chance), *after)
        case "insert":
            return (*program[:at], _operation(chance), *program[at:])
        case "delete":
            return (*before, *after)
        case _:
            return (*after[:1], program[at], *before, *after[1:])


def _body(program: Program, noise: Random | None = None) -> Body:
    """Return a program as a workflow; with `noise`, it also does what must not matter."""

    async def run() -> int:
        total = 0
        for operation in program:
            total += await _perform(operation, total)
            if noise is not None:
                total += await _harmless(noise)
        return total

    return run


async def _perform(operation: Operation, number: int) -> int:
    match operation:
        case ("step", name):
            return await STEPS[name](number)
        case ("sleep", seconds):
            await asyncio.sleep(seconds)
        case ("gather", name, other):
            return sum(await asyncio.gather(STEPS[name](number), STEPS[other](number)))
        case ("group", name, seconds):
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(seconds))
                task = group.create_task(STEPS[name](number))
            return task.result()
        case ("timeout", seconds, name):
            async with asyncio.timeout(seconds):
                return await STEPS[name](number)
        case ("expire", name):
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.gather(STEPS[name](number), asyncio.sleep(50))
            except TimeoutError:
                return 1
        case (_, token, name):
            async with Hook(int, token=token):
                return await STEPS[name](number)
        case _:
            raise AssertionError(operation)
    return 0


async def _harmless(noise: Random) -> int:
    match noise.randrange(5):
        case 0:
            await asyncio.sleep(0)
        case 1:
            await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))
        case 2:
            return round(fluvial.random() * 10)  # other arguments for the steps behind it
        case 3:
            return sum({noise.randrange(9) for _ in range(5)})
        case _:
            lock = asyncio.Lock()
            async with lock:
                return 1
    return 0


def _played(body: Body) -> list[Event]:
    registry.workflows.clear()
    player = Player("live")
    asyncio.run(player.play(workflow(name="planted")(body), (), ()))
    return player.events()


def _outputs(events: list[Event]) -> list[tuple[Any, ...]]:
    kept = [event for event in events if event.type in OUTPUTS]
    return [
        (e.type, e.id, e.meta.get("name"), e.meta.get("delay_ms"), e.meta.get("token"))
        for e in kept
    ]


def _check(events: list[Event], body: Body) -> CheckReport:
    registry.workflows.clear()
    workflow(name="planted")(body)
    return LiveRuns(registry, Player("live").keys).check(
        CheckRequest(
            run_id=RUN,
            app=APP,
            workflow="planted",
            consumed=sum(event.type in INPUTS for event in events),
            compares_values=False,
            events=[event.encode() for event in events],
        )
    )


def test_every_change_that_matters_is_caught_and_shown() -> None:
    caught = 0
    for seed in range(SEEDS):
        chance = Random(seed)
        program = _program(chance)
        changed = _changed(program, chance)
        events, others = _played(_body(program)), _played(_body(changed))
        if _outputs(events) == _outputs(others):
            continue
        report = _check(events, _body(changed))
        assert report.verdict == "diverged", f"seed {seed}: {program} → {changed}"
        assert "- recorded: " in report.detail, f"seed {seed}: {report.detail}"
        assert "+ now:      " in report.detail
        caught += 1

    assert caught > SEEDS * 0.7


def test_what_does_not_matter_raises_no_alarm() -> None:
    for seed in range(SEEDS):
        program = _program(Random(seed))
        events = _played(_body(program))
        report = _check(events, _body(program, noise=Random(seed)))
        assert report.verdict == "ok", f"seed {seed}: {program}: {report.detail}"


def test_a_change_behind_what_a_run_has_done_raises_no_alarm() -> None:
    """The run goes on with the new code, and does what that asks for."""
    for seed in range(SEEDS):
        chance = Random(seed)
        program = _program(chance)
        longer = (*program, ("step", "planted.a"), _operation(chance))
        events = _played(_body(program))
        ending = max(at for at, event in enumerate(events) if event.type in INPUTS)
        registry.workflows.clear()
        workflow(name="planted")(_body(longer))
        answer = LiveRuns(registry, Player("live").keys).turn(
            TurnRequest(
                run_id=RUN,
                app=APP,
                workflow="planted",
                turn_id=None,
                consumed=sum(event.type in INPUTS for event in events[:ending]),
                now_ms=events[-1].at_ms,
                events=[event.encode() for event in events[: ending + 1]],
            )
        )
        assert answer.outcome == "ok", f"seed {seed}: {program}: {answer.reason}"
        last = decode_event(answer.events[-1])
        assert (last.type, last.meta["name"]) == (EventType.STEP_SCHEDULED, "planted.a")
