"""Changes of a workflow's code that ask for the same in the same order raise no alarm."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

import fluvial
from fluvial.encryption import AppKeys
from fluvial.events import INPUTS, Event, EventType, decode_event
from fluvial.invocations import TurnRequest
from fluvial.registry import registry
from fluvial.steps import Step, step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import APP, RUN, context_on

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

Body = Callable[[], Coroutine[Any, Any, Any]]
CHANGES: dict[str, Body] = {}
log = logging.getLogger(__name__)


def change(body: Body) -> Body:
    CHANGES[body.__name__] = body
    return body


async def before() -> str:
    """The code that all changes begin with."""
    total = 0
    for number in range(3):
        total += await charge(number)
    label = "paid" if total > 2 else "free"
    await asyncio.sleep(60)
    first, second = await asyncio.gather(note("a"), note("b"))
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(note("c"), asyncio.sleep(100))
    except TimeoutError:
        label += f" {first}{second}"
    return label


async def charge(number: int) -> int:
    result: int = await registry.steps["benign.charge"](number)
    return result


async def note(text: str) -> str:
    result: str = await registry.steps["benign.note"](text)
    return result


async def expire(label: str) -> str:
    try:
        async with asyncio.timeout(5):
            await asyncio.gather(note("c"), asyncio.sleep(100))
    except TimeoutError:
        return label
    return "in time"


async def rest(total: int) -> str:
    label = "paid" if total > 2 else "free"
    await asyncio.sleep(60)
    first, second = await asyncio.gather(note("a"), note("b"))
    return await expire(f"{label} {first}{second}")


async def total_of(numbers: list[int]) -> int:
    return sum([await charge(number) for number in numbers])


@change
async def nothing() -> str:
    return await before()


@change
async def renamed_variables() -> str:
    amount = 0
    for n in range(3):
        amount += await charge(n)
    return await rest(amount)


@change
async def refactored_into_helpers() -> str:
    return await rest(await total_of([0, 1, 2]))


@change
async def a_comprehension_for_a_loop() -> str:
    return await rest(sum([await charge(number) for number in range(3)]))


@change
async def a_while_for_a_loop() -> str:
    total = number = 0
    while number < 3:
        total += await charge(number)
        number += 1
    return await rest(total)


@change
async def recursion_for_a_loop() -> str:
    async def total_to(number: int) -> int:
        return 0 if number == 0 else await total_to(number - 1) + await charge(number - 1)

    return await rest(await total_to(3))


@change
async def added_logging() -> str:
    log.info("it begins")
    result = await before()
    log.warning("it ends at %s", time.time())
    return result


@change
async def added_printing() -> str:
    print("it begins")  # noqa: T201 - the change
    return await before()


@change
async def added_a_look_at_the_clock() -> str:
    begin = time.monotonic()
    result = await before()
    assert time.monotonic() > begin
    return result


@change
async def added_chance_that_decides_nothing() -> str:
    fluvial.random()
    fluvial.uuid4()
    return await before()


@change
async def added_a_late_import() -> str:
    importlib.import_module("colorsys")
    return await before()


@change
async def reordered_pure_code() -> str:
    greeting, numbers = "paid", [2, 1, 0]
    numbers.sort()
    total = await total_of(numbers)
    await asyncio.sleep(60)
    first, second = await asyncio.gather(note("a"), note("b"))
    return await expire(f"{greeting if total > 2 else 'free'} {first}{second}")


@change
async def a_task_group_for_a_gather() -> str:
    await total_of([0, 1, 2])
    await asyncio.sleep(60)
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(note("a")), group.create_task(note("b"))
    return await expire(first.result() + second.result())


@change
async def fluvials_sleep_for_asyncios() -> str:
    await total_of([0, 1, 2])
    await fluvial.sleep("1m")
    await asyncio.gather(note("a"), note("b"))
    return await expire("")


@change
async def wait_for_a_timeout() -> str:
    total = await total_of([0, 1, 2])
    await asyncio.sleep(60)
    await asyncio.gather(note("a"), note("b"))
    try:
        await asyncio.wait_for(asyncio.gather(note("c"), asyncio.sleep(100)), 5)
    except TimeoutError:
        return str(total)
    return "in time"


@change
async def added_waits_that_wait_for_nothing() -> str:
    await asyncio.sleep(0)
    async with asyncio.timeout(None), asyncio.Lock(), asyncio.Semaphore(2):
        return await before()


@change
async def added_a_try_around_it() -> str:
    try:
        return await before()
    except (fluvial.StepFailedError, ExceptionGroup) as error:
        return str(error)
    finally:
        log.info("cleaned up")


@change
async def a_context_manager_around_it() -> str:
    @contextlib.contextmanager
    def timed() -> Generator[None, None, None]:
        log.info("begin")
        yield
        log.info("end")

    with timed():
        return await before()


@change
async def a_class_for_functions() -> str:
    @dataclass
    class Order:
        total: int = 0

        async def pay(self) -> None:
            for number in range(3):
                self.total += await charge(number)

    order = Order()
    await order.pay()
    return await rest(order.total)


@change
async def a_match_for_an_if() -> str:
    match await total_of([0, 1, 2]):
        case total if total > 2:
            return await rest(3)
        case _:
            return await rest(0)


@change
async def a_task_that_is_awaited_at_once() -> str:
    return await asyncio.create_task(before())


@change
async def a_task_beside_it_that_asks_for_nothing() -> str:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()

    event = asyncio.Event()
    beside = asyncio.create_task(wait(event))
    result = await before()
    event.set()
    await beside
    return result


@change
async def other_arguments_for_a_step() -> str:
    await total_of([10, 20, 30])
    return await rest(3)


@change
async def another_result() -> dict[str, str]:
    return {"label": await before()}


@change
async def a_longer_end() -> str:
    label = await before()
    await note("new")
    await asyncio.sleep(5)
    return label


def register_steps(*, changed: bool) -> None:
    """Register the steps that all of them call; `changed`: as a later version has them."""
    for name in ("benign.charge", "benign.note", "benign.unused"):
        registry.steps.pop(name, None)
    options: dict[str, Any] = {"retries": 9, "timeout": "1h"} if changed else {}

    async def charge(number: int, currency: str = "EUR") -> int:
        return number * (100 if changed else 1)

    async def note(text: str) -> str:
        return text.upper() if changed else text

    async def unused() -> None: ...

    made: dict[str, Callable[..., Any]] = {"charge": charge, "note": note}
    if changed:
        made["unused"] = unused
    for name, function in made.items():
        declared: Step[..., Any] = step(name=f"benign.{name}", **options)(function)
        assert declared.name == f"benign.{name}"


@pytest.fixture
def events(play: Play, clean_registry: None) -> list[Event]:
    """The log of the code before the change."""
    register_steps(changed=False)
    return play(workflow(name="benign")(before)).events


def replayed(keys: AppKeys, events: list[Event]) -> list[Event]:
    """Replay a log, up to its last input, on the deployment with the changes; return its end."""
    last = max(at for at, event in enumerate(events) if event.type in INPUTS)
    seen = events[: last + 1]
    request = TurnRequest(
        run_id=RUN, app=APP, workflow="benign", turn_id=None,
        consumed=sum(event.type in INPUTS for event in seen) - 1, now_ms=seen[-1].at_ms,
        events=[event.encode() for event in seen],
    )  # fmt: skip
    answer = context_on("dpl_new").run(LiveRuns(registry, keys).turn, request)
    assert answer.outcome == "ok", answer.reason
    return [decode_event(data) for data in answer.events]


@pytest.mark.parametrize("with_steps", [False, True], ids=["steps as before", "steps changed too"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_benign_change_raises_no_alarm(
    keys: AppKeys, events: list[Event], name: str, with_steps: bool
) -> None:
    register_steps(changed=with_steps)
    registry.workflows.clear()
    workflow(name="benign")(CHANGES[name])

    end = replayed(keys, events)

    expected = {"a_longer_end": EventType.STEP_SCHEDULED}.get(name, EventType.RUN_COMPLETED)
    assert end[-1].type is expected


def test_there_are_enough_of_them() -> None:
    assert len(CHANGES) >= 20
