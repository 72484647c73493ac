"""Real workflows for the campaigns, and what each must come to.

Every body takes virtual time, notes that it was executed, and leaves an effect under its
idempotency key. `size` is how much a run does: shrinking makes it smaller.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import fluvial
from fluvial import Hook, StartOptions, StepFailedError, sleep, step, workflow
from fluvial.workflows import Workflow


@dataclass
class Outside:
    """The world outside the runs, as their steps know it."""

    pause: Callable[[int], Awaitable[None]]
    bodies: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])
    effects: dict[str, Any] = field(default_factory=dict[str, Any])

    async def execute(self, value: Any, takes_ms: int) -> Any:
        """What a step does."""
        about = fluvial.metadata()
        assert about.step_id is not None
        self.bodies[about.run_id, about.step_id] += 1
        await self.pause(takes_ms)
        known = self.effects.setdefault(about.idempotency_key, value)
        assert known == value, "two attempts of a step differ"
        return value


class _Outsides:
    current: Outside | None = None


def enter(outside: Outside) -> None:
    """Have the steps know this world from now on."""
    _Outsides.current = outside


def _outside() -> Outside:
    assert _Outsides.current is not None
    return _Outsides.current


@step(name="campaign.work", retries=3, backoff=0.02)
async def work(value: int, takes_ms: int = 0) -> int:
    result: int = await _outside().execute(value, takes_ms)
    return result


@step(name="campaign.work_sync", retries=0)
def work_sync(value: int) -> int:
    return value


@step(name="campaign.flaky", retries=4, backoff=0.03)
async def flaky(value: int, failures: int) -> int:
    if fluvial.metadata().attempt <= failures:
        raise ValueError(f"attempt {fluvial.metadata().attempt}")
    result: int = await _outside().execute(value, 5)
    return result


@step(name="campaign.broken", retries=1, backoff=0.01)
async def broken() -> None:
    raise ValueError("always")


@step(name="campaign.note")
async def note(token: str) -> None:
    await _outside().execute(token, 0)


@workflow(name="campaign.sequence")
async def sequence(size: int) -> int:
    total = 0
    for number in range(size):
        total = await work(total + number)
    return await work_sync(total)


@workflow(name="campaign.fan_out")
async def fan_out(size: int) -> list[int]:
    values = await asyncio.gather(*(work(number, number % 3) for number in range(size)))
    return [*values, await work(sum(values))]


@workflow(name="campaign.race")
async def race(size: int) -> list[str]:
    outcomes: list[str] = []
    for number in range(size):
        try:
            async with asyncio.timeout(0.02):
                outcomes.append(f"in time {await work(number, 10 + 10 * (number % 3))}")
        except TimeoutError:
            outcomes.append(f"late {await work(-number)}")
    return outcomes


@workflow(name="campaign.first")
async def first(size: int) -> int:
    tasks = [asyncio.ensure_future(work(number, 7)) for number in range(size)]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    return size if done else 0


@workflow(name="campaign.approval")
async def approval(size: int) -> list[Any]:
    async with Hook(int) as hook:
        _, *values = await asyncio.gather(
            note(hook.token), *(work(number) for number in range(size))
        )
        try:
            async with asyncio.timeout(60):
                return [*values, await hook]
        except TimeoutError:
            return [*values, "expired"]


@workflow(name="campaign.stream_of_payloads")
async def payloads(size: int) -> int:
    received = 0
    async with Hook(int, token=f"payloads:{fluvial.metadata().run_id}") as hook:
        async for _ in hook:
            received += 1
            await work(received)
            if received == size:
                return received
    return -1


@workflow(name="campaign.rivals")
async def rivals(size: int) -> str:
    try:
        async with Hook(int, token="rivals") as hook:
            await work(size)
            return f"got {await hook}"
    except fluvial.HookConflictError:
        return f"refused {await work(size)}"


@workflow(name="campaign.retries")
async def retries(size: int) -> list[Any]:
    values: list[Any] = [await flaky(number, number % 3) for number in range(size)]
    try:
        await broken()
    except StepFailedError as error:
        values.append(error.attempts)
    return values


@workflow(name="campaign.group")
async def group(size: int) -> str:
    caught = 0
    try:
        async with asyncio.TaskGroup() as tasks:
            for number in range(size):
                tasks.create_task(work(number, 30))
            tasks.create_task(broken())
    except* StepFailedError as errors:
        caught = len(errors.exceptions)
    return f"{caught} failed, {await work(0)}"


@workflow(name="campaign.careful")
async def careful(size: int) -> str:
    try:
        for number in range(size):
            await work(number)
            await sleep(0.02)
        return "done"
    finally:
        await work(-1)


@workflow(name="campaign.drawing")
async def drawing(size: int) -> list[Any]:
    drawn: list[Any] = []
    for number in range(size):
        drawn.append((fluvial.random(), str(fluvial.uuid4()), fluvial.now().isoformat()))
        await work(number)
        await sleep(0.01 * number)
    fluvial.publish(drawn)
    return drawn


@workflow(name="campaign.parent")
async def parent(size: int) -> list[Any]:
    children = [await fluvial.start(sequence, 1 + number % 2) for number in range(size)]
    values = await asyncio.gather(*(child.result() for child in children), work(size))
    left = await fluvial.start(careful, 2, options=StartOptions(on_parent_end="cancel"))
    await fluvial.set_tags({"left": left.id})
    return list(values)


@workflow(name="campaign.continuing")
async def continuing(size: int) -> str:
    await work(size)
    if size > 1:
        fluvial.continue_as_new(size - 1)
    return "last"


PROGRAMS: Final[tuple[Workflow[..., Any], ...]] = (
    sequence,
    fan_out,
    race,
    first,
    approval,
    payloads,
    rivals,
    retries,
    group,
    careful,
    drawing,
    parent,
    continuing,
)


def is_right(name: str, size: int, result: Any) -> bool:
    """Whether a run that completed has come to what its program says."""
    expected: dict[str, Callable[[], bool]] = {
        "campaign.sequence": lambda: result == _sequence(size),
        "campaign.fan_out": lambda: result == [*range(size), sum(range(size))],
        "campaign.race": lambda: (
            [text.split()[-1] for text in result]
            in ([str(n if text.startswith("in") else -n) for n, text in enumerate(result)],)
        ),
        "campaign.first": lambda: result == size,
        "campaign.approval": lambda: result[:-1] == list(range(size)) and len(result) == size + 1,
        "campaign.stream_of_payloads": lambda: result == size,
        "campaign.rivals": lambda: result.startswith("got ") or result == f"refused {size}",
        "campaign.retries": lambda: result == [*range(size), 2],
        "campaign.group": lambda: result == "1 failed, 0",
        "campaign.careful": lambda: result == "done",
        "campaign.drawing": lambda: len(result) == size == len({draw for draw, _, _ in result}),
        "campaign.parent": lambda: result == [*(_sequence(1 + n % 2) for n in range(size)), size],
        "campaign.continuing": lambda: result == "last",
    }
    return expected[name]()


def _sequence(size: int) -> int:
    total = 0
    for number in range(size):
        total += number
    return total
