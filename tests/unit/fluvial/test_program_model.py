"""Random asyncio programs do as workflows what they do on a plain loop, live and replayed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial import guards
from fluvial.context import metadata
from fluvial.loop import current_loop
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow
from tests.unit.fluvial.conftest import START_MS
from tests.unit.fluvial.programs import STEPS, Program, World, execute, programs
from tests.unit.fluvial.virtual_loop import FLAKY_ATTEMPTS, Trace, predict

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

guards.install()
EAGER: Any = getattr(asyncio, "eager_task_factory", None)
NAMES = (*STEPS, "undo")


async def body(value: int) -> int:
    return value


async def broken(value: int) -> int:
    raise ValueError(value)


async def flaky(value: int) -> int:
    if metadata().attempt < FLAKY_ATTEMPTS:
        raise ValueError(value)
    return value


@pytest.fixture
def traces(clean_registry: None) -> list[Trace]:
    return []


def register() -> None:
    functions = {"broken": broken, "flaky": flaky}
    for name in NAMES:
        registry.steps.pop(f"model.{name}", None)
        retries = FLAKY_ATTEMPTS if name == "flaky" else 0
        step(name=f"model.{name}", retries=retries)(functions.get(name, body))


def played(
    play: Play,
    program: Program,
    durations: dict[str, int],
    cancels: list[int],
    *,
    eager: bool,
    batch: bool,
) -> list[tuple[str, Trace]]:
    """Return what a program did as a workflow: how it ended and its trace, in each mode."""
    register()
    traces: list[Trace] = []
    last: list[Trace] = []

    async def call(name: str, value: int) -> int:
        result: int = await registry.steps[f"model.{name}"](value)
        return result

    @workflow(name="model")
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(EAGER if eager else None)
        trace: Trace = []
        traces.append(trace)

        def note(what: str) -> None:
            running = current_loop()
            if running is not None and not running.journal.is_closed:
                trace.append((round(loop.time() * 1000) - START_MS, what))

        return await execute(program, World(call, note))

    def before() -> None:
        last.extend(traces[-1:])  # of the mode before: the last turn's, which saw it all

    outcome = play(
        main,
        actions=[play.cancel(at_ms) for at_ms in cancels],
        before=before,
        durations=durations,
        batch=batch,
    )
    before()
    assert outcome.error is None
    ending = "cancelled" if outcome.types[-1] == "RUN_CANCELLED" else outcome.result
    return [(ending, trace) for trace in last]


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    program=programs,
    durations=st.fixed_dictionaries({name: st.integers(1, 60) for name in NAMES}),
    cancels=st.one_of(st.just([]), st.lists(st.integers(0, 300), max_size=2)),
    eager=st.booleans() if EAGER is not None else st.just(False),
    batch=st.booleans(),
)
def test_a_workflow_does_what_a_plain_loop_does(
    play: Play,
    traces: list[Trace],
    program: Program,
    durations: dict[str, int],
    cancels: list[int],
    eager: bool,
    batch: bool,
) -> None:
    predicted = predict(program, durations, cancels, start_ms=START_MS, eager=eager)

    found = played(play, program, durations, cancels, eager=eager, batch=batch)

    assert found == [predicted] * len(play.modes)
