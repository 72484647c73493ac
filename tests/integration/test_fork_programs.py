"""Forks of random programs: from every step, replayed and live."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

import fluvial
from fluvial.events import Event, EventType
from fluvial.payloads import PayloadReader
from fluvial.testing import Mode
from fluvial_queue import open_store
from tests.integration.forking import Forking
from tests.integration.in_process import Application, each_mode, run_application

rounds = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ENDS = (EventType.STEP_COMPLETED, EventType.STEP_FAILED)
executed: list[str] = []  # labels of steps, as they are executed

_leaves = st.one_of(
    st.tuples(st.just("step"), st.integers(0, 12)),
    st.tuples(st.just("step"), st.integers(0, 12)),
    st.tuples(st.just("broken"), st.integers(0, 12)),
    st.tuples(st.just("chance"), st.just(0)),
    st.tuples(st.just("sleep"), st.integers(0, 2)),
)
trees = st.recursive(
    _leaves,
    lambda parts: st.tuples(
        st.sampled_from(["gather", "sequence"]), st.lists(parts, min_size=1, max_size=4)
    ),
    max_leaves=10,
)


@fluvial.step(name="forks.work", retries=0)
async def work(label: str, rounds: int) -> str:
    executed.append(label)
    for _ in range(rounds):  # of the event loop: what began first does not end first
        await asyncio.sleep(0)
    if label.endswith("!"):
        raise ValueError(label)
    return label


@fluvial.workflow(name="forks.program")
async def program(tree: Any) -> Any:
    return await _run(tree, "0")


async def _run(tree: Any, label: str) -> Any:
    """Run a tree; what it returns does not depend on what ends first."""
    kind, content = tree
    match kind:
        case "step":
            return await work(label, content)
        case "broken":
            try:
                return await work(f"{label}!", content)
            except fluvial.StepFailedError as error:
                return repr(error.__cause__)
        case "chance":
            fluvial.publish(label)
            return label
        case "sleep":
            await asyncio.sleep(content / 1000)
            return label
        case _:
            return await _run_several(kind, content, label)


async def _run_several(kind: str, content: Any, label: str) -> list[Any]:
    labelled = [(part, f"{label}.{number}") for number, part in enumerate(content)]
    if kind == "gather":
        return await asyncio.gather(*(_run(*part) for part in labelled))
    return [await _run(*part) for part in labelled]


@each_mode
@rounds
@given(tree=trees)
def test_a_fork_executes_what_had_not_ended_before_its_step_and_nothing_else(
    mode: Mode, tree: Any
) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        origin = await app.start(program, tree)
        result = await app.result(origin)
        log = await app.events(origin)
        ends = _ends(app, origin, log)
        for step_id, (_, position) in ends.items():
            executed.clear()
            run_id = await forking.fork(origin, step_id)

            assert await app.result(run_id) == result
            again = [label for label, end in ends.values() if end >= position]
            assert Counter(executed) == Counter(again), (step_id, _shown(log))
        executed.clear()
        assert await app.result(await forking.fork(origin, 0)) == result
        assert Counter(executed) == Counter(label for label, _ in ends.values())
        assert await app.events(origin) == log

    run_application(open_store("memory://"), main, mode=mode)


@each_mode
@rounds
@given(tree=trees)
def test_a_retry_of_what_failed_last_keeps_every_success_from_before(mode: Mode, tree: Any) -> None:
    async def main(app: Application) -> None:
        forking = await Forking.of(app)
        origin = await app.start(program, tree)
        result = await app.result(origin)
        log = await app.events(origin)
        ends = dict(_ends(app, origin, log).values())
        failed = {end: label for label, end in ends.items() if label.endswith("!")}
        assume(failed)
        executed.clear()

        assert await app.result(await forking.fork(origin, None)) == result
        assert failed[max(failed)] in executed
        succeeded = [label for label in executed if not label.endswith("!")]
        assert all(ends[label] > max(failed) for label in succeeded), (executed, _shown(log))
        assert Counter(executed).most_common(1)[0][1] == 1

    run_application(open_store("memory://"), main, mode=mode)


def _ends(app: Application, run_id: str, log: Sequence[Event]) -> dict[int, tuple[str, int]]:
    """Return of each step its label and where the log has its end."""
    reader = PayloadReader(app.keys.for_run(run_id))
    positions = {event.id: at for at, event in enumerate(log) if event.type in ENDS}
    asked = [event for event in log if event.type is EventType.STEP_SCHEDULED]
    return {e.id: (str(reader.value(e)[0][0]), positions[e.id]) for e in asked}


def _shown(log: Sequence[Event]) -> list[str]:
    return [f"{event.type.name} {event.id}" for event in log]
