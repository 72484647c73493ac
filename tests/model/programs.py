"""The model's two programs as real workflows; each asks for the same at the same inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import fluvial
from fluvial import Hook, sleep, step, workflow
from fluvial.workflows import Workflow
from tests.model import handoff
from tests.model.handoff import Log

TOKEN: Final = "token"


class _Chance:
    fails = False  # whether the first attempt of `c` fails


def let_c_fail(fails: bool) -> None:
    """Say whether the first attempt of the step `c` fails from now on."""
    _Chance.fails = fails


@step(name="a")
async def step_a() -> None: ...


@step(name="b")
async def step_b() -> None: ...


@step(name="c_a")
async def step_c_a() -> None: ...


@step(name="c_b")
async def step_c_b() -> None: ...


@step(name="c", retries=1, backoff=0.05)
async def step_c() -> None:
    if _Chance.fails and fluvial.metadata().attempt == 1:
        raise ValueError("the first attempt")


@workflow(name="fan_out")
async def fan_out() -> None:
    finished: list[str] = []

    async def run(body: Any, name: str) -> None:
        await body()
        finished.append(name)

    await asyncio.gather(run(step_a, "a"), run(step_b, "b"))
    await (step_c_a if finished[0] == "a" else step_c_b)()
    async with Hook(object, token=TOKEN) as hook:
        await hook


@workflow(name="retry_and_sleep")
async def retry_and_sleep() -> None:
    async with Hook(object, token=TOKEN) as hook, asyncio.TaskGroup() as tasks:
        payload = tasks.create_task(_next(hook))
        await step_c()
        if not payload.done():
            await sleep(0.05)


async def _next(hook: Hook[object]) -> None:
    await hook


PROGRAMS: Final[tuple[tuple[Workflow[..., None], Callable[[Log], Log]], ...]] = (
    (fan_out, handoff.fan_out),
    (retry_and_sleep, handoff.retry_and_sleep),
)
