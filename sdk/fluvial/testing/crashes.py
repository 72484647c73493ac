"""Crash-point enumeration: a scenario, once for each thing that can go wrong at each point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast, get_args

from fluvial.errors import InvalidRequestError
from fluvial.testing.engines import FAULTS_AT, EngineFactory, Fault, Mode, PlannedFault, Point
from fluvial.testing.environment import Environment
from fluvial.testing.errors import CrashPointError
from fluvial.workflows import Workflow

Scenario = Callable[[Environment], Awaitable[Any]]

ALL_FAULTS: Final[frozenset[Fault]] = frozenset(get_args(Fault))
_LINES: Final = 30  # of the history that an error shows, up to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class CrashReport:
    """What an enumeration has tried."""

    points: int  # durable points of the scenario
    plays: int  # how often it was played with a fault
    outcome: Any  # what the scenario comes to, each time

    def __str__(self) -> str:
        return f"{self.points} points, {self.plays} plays with a fault: the same outcome each time"


@dataclass(frozen=True, slots=True)
class _Play:
    """One playing of a scenario."""

    outcome: Any
    error: BaseException | None
    points: Sequence[Point]
    fault_was_hit: bool
    describe: Callable[[], str]  # the logs and the history, for people


async def enumerate_crashes(
    scenario: Scenario | Workflow[..., Any],
    *args: Any,
    faults: Collection[Fault] = ALL_FAULTS,
    seed: int | None = None,
    mode: Mode | None = None,
    engine: EngineFactory | None = None,
) -> CrashReport:
    """Play a scenario once without faults; then once per durable point and fault, with that fault
    there; and check that it comes to the same each time.

    A scenario is an async function of an `Environment`. It starts runs, resumes hooks, lets time
    pass, and returns everything that must be the same: the result, and what the outside world has
    seen (a `Ledger` counts that). It must begin anew each time. In the place of a scenario may
    stand a workflow with its arguments: it is started, and its result compared.

    Raises:
        CrashPointError: it came to something else; the message names the point and the fault, and
            has the logs.
    """
    if isinstance(scenario, Workflow):
        scenario = _of_workflow(cast("Workflow[..., Any]", scenario), args)
    unknown = set(faults) - ALL_FAULTS
    if unknown:
        raise InvalidRequestError(f"unknown faults {sorted(unknown)}; known: {sorted(ALL_FAULTS)}")

    playing = partial(_play, scenario, seed=seed, mode=mode, engine=engine)

    expected = await playing(None)
    if expected.error is not None:
        raise expected.error
    again = await playing(None)
    if (again.outcome, again.points) != (expected.outcome, expected.points):
        raise CrashPointError(_not_repeatable(expected, again))
    plays = 0
    for point in expected.points:
        for fault in FAULTS_AT[point.kind]:
            if fault in faults:
                _compare(expected, await playing(PlannedFault(point.number, fault)), point, fault)
                plays += 1
    return CrashReport(points=len(expected.points), plays=plays, outcome=expected.outcome)


def _of_workflow(workflow: Workflow[..., Any], args: tuple[Any, ...]) -> Scenario:
    async def scenario(env: Environment) -> Any:
        return await (await env.start(workflow, *args)).result()

    return scenario


async def _play(
    scenario: Scenario,
    fault: PlannedFault | None,
    *,
    seed: int | None,
    mode: Mode | None,
    engine: EngineFactory | None,
) -> _Play:
    async with Environment(seed=seed, mode=mode, engine=engine, fault=fault) as env:
        outcome, error = None, None
        try:
            # Copied: the next playing may change what it returned, a list of a fake bank's.
            outcome = deepcopy(await scenario(env))
        except Exception as raised:  # noqa: BLE001 - user code: compared, and raised again
            error = raised
        points, was_hit = list(env.points), env.engine.fault_was_hit
    return _Play(outcome, error, points, was_hit, partial(_describe, env))


def _describe(env: Environment) -> str:
    history = "\n".join(env.history[-_LINES:])
    return f"{env.report()}\n\nwhat happened last:\n{history}"


def _compare(expected: _Play, played: _Play, point: Point, fault: Fault) -> None:
    where = f"{fault} at {point}"
    if not played.fault_was_hit:
        raise CrashPointError(
            f"{where}: the scenario did not come there again, so it does not do the same each time"
            f"\n\n{played.describe()}"
        )
    if played.error is not None:
        raise CrashPointError(
            f"{where}: {_named(played.error)}\n\n{played.describe()}"
        ) from played.error
    if played.outcome != expected.outcome:
        raise CrashPointError(
            f"{where}: the scenario comes to something else\n"
            f"  without: {expected.outcome!r}\n  with:    {played.outcome!r}\n\n{played.describe()}"
        )


def _not_repeatable(expected: _Play, again: _Play) -> str:
    if again.error is not None:
        return f"the scenario cannot be played twice: {_named(again.error)}\n\n{again.describe()}"
    if again.outcome != expected.outcome:
        return (
            "the scenario comes to something else when it is played again, without any fault"
            f"\n  first:  {expected.outcome!r}\n  second: {again.outcome!r}"
        )
    return "the scenario passes other points when it is played again, without any fault"


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
