"""Random programs of gather, wait, timeout, cancel and hooks: live and replay write one log."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fluvial.determinism import random, uuid4
from fluvial.errors import StepFailedError
from fluvial.hooks import Hook
from fluvial.registry import registry
from fluvial.steps import step
from fluvial.workflows import workflow

if TYPE_CHECKING:
    from tests.unit.fluvial.conftest import Play

Program = list[Any]
DURATIONS = {"quick": 1, "medium": 7, "slow": 40, "broken": 3}


async def quick(number: int) -> int:
    return number


async def medium(number: int) -> int:
    return number


async def slow(number: int) -> int:
    return number


async def broken(number: int) -> int:
    raise ValueError(number)


leaves = st.one_of(
    st.tuples(st.just("step"), st.sampled_from(["quick", "medium", "slow", "broken"])),
    st.tuples(st.just("sleep"), st.sampled_from([0, 0.001, 0.005, 0.03, 2])),
    st.tuples(st.just("hook"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("chance"), st.none()),
)


def branches(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(children, min_size=1, max_size=4)
    return st.one_of(
        st.tuples(st.just("sequence"), several),
        st.tuples(st.just("gather"), several),
        st.tuples(st.just("group"), several),
        st.tuples(st.just("first"), several),
        st.tuples(st.just("race"), several),
        st.tuples(st.just("timeout"), children),
        st.tuples(st.just("shielded"), children),
        st.tuples(st.just("careful"), children),
        st.tuples(st.just("dropped"), children),
    )


programs = st.recursive(leaves, branches, max_leaves=12)
actions = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["a", "b", "cancel"])), max_size=4)


async def run(program: Any, trace: list[Any]) -> None:
    kind, content = program
    match kind:
        case "step":
            trace.append(await registry.steps[f"program.{content}"](len(trace)))
        case "sleep":
            await asyncio.sleep(content)
        case "hook":
            async with asyncio.timeout(0.050), Hook(int, token=content) as hook:
                trace.append(await hook)
        case "chance":
            trace.append([random(), str(uuid4())])
        case "sequence":
            for each in content:
                await run(each, trace)
        case "gather":
            results = await asyncio.gather(
                *(run(each, trace) for each in content), return_exceptions=True
            )
            trace.append([type(result).__name__ for result in results])
        case "group":
            async with asyncio.TaskGroup() as group:
                for each in content:
                    group.create_task(run(each, trace))
        case _:
            await run_waiting(kind, content, trace)


async def run_waiting(kind: str, content: Any, trace: list[Any]) -> None:
    match kind:
        case "first":
            tasks = [asyncio.create_task(run(each, trace)) for each in content]
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            trace.append([len(done), len(pending)])
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        case "race":
            for each in asyncio.as_completed([run(each, trace) for each in content]):
                await each
        case "timeout":
            try:
                async with asyncio.timeout(0.010):
                    await run(content, trace)
            except TimeoutError:
                trace.append("timeout")
        case "shielded":
            await asyncio.shield(run(content, trace))
        case "careful":
            try:
                await run(content, trace)
            finally:
                trace.append(await registry.steps["program.quick"](-1))
        case _:
            asyncio.ensure_future(run(content, trace)).add_done_callback(lambda t: t.cancelled())
            await asyncio.sleep(0)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(program=programs, what=actions, batch=st.booleans())
def test_live_and_replay_write_one_log(play: Play, program: Any, what: Any, batch: bool) -> None:
    for function in (quick, medium, slow, broken):
        step(retries=0, name=f"program.{function.__name__}")(function)

    @workflow(name="program")
    async def main() -> list[Any]:
        trace: list[Any] = []
        try:
            await run(program, trace)
        except (StepFailedError, ExceptionGroup, TimeoutError) as error:
            trace.append(type(error).__name__)
        return trace

    play(
        main,
        actions=[
            play.cancel(at) if name == "cancel" else play.resume(at, at, token=name)
            for at, name in what
        ],
        durations=DURATIONS,
        batch=batch,
    )
