"""The workflows of the golden logs.

What is written here has been played, and the logs are kept: do not change what a workflow does. New
behaviour gets a workflow of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import random
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import fluvial
from fluvial import FatalError, Hook, RetryableError, StepFailedError, step, workflow


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True)
class Order:
    number: int
    colour: Colour
    price: Decimal
    lines: tuple[str, ...]


class OrderError(Exception):
    """An error of the app's own."""


@step(name="golden.add")
async def add(a: int, b: int = 1, *, note: str = "") -> int:
    return a + b


@step(name="golden.plain")
def plain(text: str) -> str:
    return text.upper()


@step(name="golden.slow")
async def slow(name: str) -> str:
    return name


@step(name="golden.flaky", retries=3, backoff=0.5)
async def flaky(succeeds_at: int) -> int:
    attempt = fluvial.metadata().attempt
    if attempt == 1:
        raise RetryableError("soon", retry_after=2.0)
    if attempt < succeeds_at:
        raise OrderError(f"attempt {attempt}")
    return attempt


@step(name="golden.failing", retries=0)
async def failing(kind: str) -> None:
    match kind:
        case "builtin":
            raise KeyError("missing")
        case "fatal":
            raise FatalError("never again")
        case "cause":
            raise OrderError("outer") from ValueError("inner")
        case _:
            raise OrderError(kind)


@step(name="golden.echo")
async def echo(value: Any) -> Any:
    return value


@step(name="golden.order")
async def order(number: int) -> Order:
    return Order(number, Colour.BLUE, Decimal("9.90"), ("a", "b"))


@workflow(name="golden.sequence")
async def sequence(count: int) -> str:
    total = 0
    for number in range(count):
        total = await add(total, number, note=f"round {number}")
    return await plain(f"total {total}")


@workflow(name="golden.retries")
async def retries() -> list[int]:
    return [await flaky(2), await flaky(3)]


@workflow(name="golden.gather")
async def gather() -> list[Any]:
    together = await asyncio.gather(add(1), slow("a"), plain("b"), add(2, b=5))
    async with asyncio.TaskGroup() as group:
        first, second = group.create_task(add(3)), group.create_task(slow("c"))
    completed = [await each for each in asyncio.as_completed([slow("d"), add(4)])]
    done, pending = await asyncio.wait(
        [asyncio.ensure_future(slow("e")), asyncio.ensure_future(add(5))],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in pending:
        task.cancel()
    return [together, first.result(), second.result(), completed, [t.result() for t in done]]


@workflow(name="golden.timeouts")
async def timeouts() -> list[str]:
    seen: list[str] = []
    try:
        async with asyncio.timeout(2):
            await slow("late")
    except TimeoutError:
        seen.append("timed out")
    async with asyncio.timeout(3600):
        seen.append(str(await add(1)))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(slow("late again"), 1.5)
    await fluvial.sleep(timedelta(days=400))
    await fluvial.sleep(fluvial.now() + timedelta(hours=1))
    seen.append(fluvial.now().isoformat())
    return seen


@workflow(name="golden.hooks")
async def hooks() -> list[Any]:
    seen: list[Any] = []
    async with Hook(Order, token="order:7") as typed:
        seen.append(await typed)
    async with Hook(object) as made:
        await echo(made.token)
        async for payload in made:
            seen.append(payload)
            if payload == "last":
                break
    try:
        async with Hook(object, token="taken") as refused:
            await refused
    except fluvial.HookConflictError:
        seen.append("taken")
    return seen


@workflow(name="golden.talking")
async def talking() -> list[Any]:
    seen: list[Any] = []
    async with Hook(object, token="held") as held:
        seen.append(await held.conflict())
    async with Hook(Order, name="orders", metadata={"shop": 7}) as orders:
        async for request in orders.requests():
            seen.append(request.value.number)
            if request.value.number < 0:
                request.refuse("no such order")
                continue
            await request.answer({"taken": [*seen], "in": request.value.colour})
            if request.value.number == 9:
                break
    try:
        async with Hook(object, timeout="1 h") as silent:
            await silent
    except TimeoutError:
        seen.append("nobody")
    return seen


@workflow(name="golden.cancelled")
async def cancelled() -> None:
    await add(1)
    try:
        await asyncio.gather(slow("x"), slow("y"), asyncio.sleep(9000))
    except asyncio.CancelledError:
        await plain("clean up")
        await asyncio.sleep(1)
        raise
    finally:
        await add(2)


@workflow(name="golden.failed_steps")
async def failed_steps() -> list[str]:
    seen: list[str] = []
    for kind in ("builtin", "fatal", "cause", "own"):
        try:
            await failing(kind)
        except StepFailedError as error:
            seen.append(f"{type(error.__cause__).__name__} after {error.attempts}")
    return seen


@workflow(name="golden.failed")
async def failed() -> None:
    await add(1)
    await failing("own")


@workflow(name="golden.chance")
async def chance() -> list[Any]:
    drawn: list[Any] = [fluvial.random(), fluvial.uuid4(), uuid.uuid4(), random.random()]
    drawn += [random.randint(1, 10**9), random.sample(range(1000), 5)]
    await asyncio.sleep(1.25)
    drawn += [fluvial.now(), time.time(), datetime.now(UTC), fluvial.random(), random.choice("abc")]
    return [*drawn, await echo(drawn)]


@workflow(name="golden.tasks")
async def tasks() -> list[Any]:
    seen: list[Any] = []
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
    lock, started = asyncio.Lock(), asyncio.Event()

    async def produce() -> None:
        started.set()
        for number in range(4):
            await queue.put(await add(number, 10))
        await queue.put(-1)

    async def consume() -> None:
        await started.wait()
        while (number := await queue.get()) >= 0:
            async with lock:
                seen.append(await slow(f"consumed {number}"))

    async with asyncio.TaskGroup() as group:
        group.create_task(consume())
        group.create_task(produce())
    shielded = asyncio.ensure_future(slow("shielded"))
    try:
        async with asyncio.timeout(1):
            await asyncio.shield(shielded)
    except TimeoutError:
        seen.append(await shielded)
    abandoned = asyncio.create_task(slow("abandoned"))
    await asyncio.sleep(0.5)
    abandoned.cancel()
    limit = asyncio.Semaphore(2)

    async def limited(number: int) -> int:
        async with limit:
            return await add(number)

    return [*seen, await asyncio.gather(*(limited(number) for number in range(5)))]


@workflow(name="golden.generators")
async def generators() -> list[Any]:
    @asynccontextmanager
    async def charged(name: str) -> AsyncGenerator[str]:
        yield await slow(f"charge {name}")
        await slow(f"refund {name}")

    async def numbers() -> AsyncIterator[int]:
        for number in range(3):
            yield await add(number)

    async with charged("a") as first, charged("b") as second:
        return [first, second, [number async for number in numbers()]]


@workflow(name="golden.groups")
async def groups() -> list[str]:
    seen: list[str] = []
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing("own"))
            group.create_task(slow("sibling"))
            group.create_task(asyncio.sleep(100))
    except* StepFailedError as errors:
        seen = [str(error) for error in errors.exceptions]
    return seen


@workflow(name="golden.values")
async def values(given: Order, when: datetime) -> list[Any]:
    kept = await echo(
        {
            "none": None,
            "flags": (True, False),
            "numbers": [0, -1, 2**70, 1.5, float("inf"), 3 + 4j],
            "text": "ä\U0001f600\0",
            "bytes": b"\x00\xff",
            "set": {3, 1, 2},
            "frozen": frozenset({"b", "a"}),
            "times": [when, when.date(), when.time(), timedelta(milliseconds=1)],
            "decimal": Decimal("1.10"),
            "uuid": uuid.UUID(int=7),
            "colour": Colour.RED,
            "day": date(2024, 2, 29),
            "long": "x" * 5000,
        }
    )
    return [given, await order(given.number + 1), kept]


@workflow(name="golden.patches")
async def patches() -> list[Any]:
    seen: list[Any] = [fluvial.patched("first")]
    number = 0
    while fluvial.patched("in a loop") and number < 5:
        number = await add(number, 2)
    await asyncio.sleep(1)
    return [*seen, number, fluvial.patched("first"), fluvial.patched("last")]


@workflow(name="golden.child")
async def child(number: int) -> int:
    return 2 * number


@workflow(name="golden.failing_child")
async def failing_child() -> None:
    raise OrderError("no")


@workflow(name="golden.children")
async def children() -> list[Any]:
    runs = [await fluvial.start(child, number) for number in range(2)]
    results: list[Any] = await asyncio.gather(*(run.result() for run in runs))
    results.append(await fluvial.execute(child, 21))
    try:
        await fluvial.execute(failing_child)
    except fluvial.RunFailedError as error:
        results.append(type(error.__cause__).__name__)
    left = await fluvial.start(child, 9)
    await left.cancel()
    return results


@workflow(name="golden.continued")
async def continued(number: int) -> None:
    fluvial.publish({"number": number})
    await fluvial.set_tags({"number": str(number)})
    try:
        fluvial.continue_as_new(await add(number))
    finally:
        await plain("closing")


@workflow(name="golden.wake")
async def wake() -> str:
    before = fluvial.now()
    await fluvial.sleep(timedelta(days=30))
    return f"slept {fluvial.now() - before}"


@workflow(name="golden.early_end")
async def early_end() -> str:
    left = asyncio.create_task(slow("left behind"))
    await asyncio.sleep(0.001)
    return f"done: {left.done()}"
