"""The rows of the performance table: what is measured, against whom, and the target.

A row is a ratio within one run: the platform and its opponent take turns (A B A B …), the medians
of the pairs are quoted with minimum and maximum. Nothing is asserted here.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from fluvial_queue.contract import Durability
from tests.benchmarks.cold_start_rows import COLD_STARTS
from tests.benchmarks.concurrency_rows import h4, h5
from tests.benchmarks.dev_rows import d1
from tests.benchmarks.figures import Figure
from tests.benchmarks.http_rows import h2, h3
from tests.benchmarks.systems import (
    Fluvial,
    Taskiq,
    cpu_seconds,
    fluvial,
    taskiq,
    uvicorn_direct,
)
from tests.benchmarks.usage_rows import z3

HERE = Path(__file__).parent
APP = HERE / "handoff_app"
PAIRS = 5
QUIET = ("--no-access-log", "--log-level", "warning")


def t1() -> Iterator[Figure]:
    """Workflow of 10 trivial steps, one run at a time: ms per step (p50)."""
    targets: dict[Durability, str] = {"process": "≤ 0.25×", "disk": "≤ 0.4×"}
    for durability, target in targets.items():
        with ExitStack() as stack:
            ours = stack.enter_context(fluvial(durability, APP))
            theirs = stack.enter_context(taskiq(durability))
            ours.play(workflow="in_sequence", steps=10, runs=20)
            _sequential_tasks(theirs, 50)
            pairs = [
                (_step_ms(ours, runs=30), _sequential_tasks(theirs, 200)) for _ in range(PAIRS)
            ]
        yield Figure(
            f"T1 ms per step, {durability} (taskiq: ms per task)",
            "ms",
            [a for a, _ in pairs],
            [b for _, b in pairs],
            target,
        )


def t2() -> Iterator[Figure]:
    """1,000 runs × 5 steps, 64 in flight: steps/s and CPU seconds per 1,000 steps."""
    rates: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(fluvial("process", APP))
        theirs = stack.enter_context(taskiq("process"))
        ours.play(workflow="in_sequence", steps=5, runs=100, in_flight=64)
        _concurrent_tasks(theirs, 100)
        for _ in range(PAIRS):
            a, b = _throughput(ours, 1000), _concurrent_tasks(theirs, 1000)
            rates.append((a[0], b[0]))
            costs.append((a[1], b[1]))
    yield Figure("T2 steps/s", "/s", [a for a, _ in rates], [b for _, b in rates], "≥ 8×")
    yield Figure(
        "T2 CPU-s per 1,000 steps", "s", [a for a, _ in costs], [b for _, b in costs], "≤ 0.2×"
    )


def t3() -> Iterator[Figure]:
    """One workflow, 100 parallel steps, gathered, against 100 sequential ones."""
    with fluvial("process", APP) as ours:
        ours.play(workflow="in_parallel", steps=100, runs=3)
        pairs = [
            (
                1000 * _median_run(ours, workflow="in_parallel", steps=100, runs=5),
                100 * _step_ms(ours, runs=20),
            )
            for _ in range(PAIRS)
        ]
    yield Figure(
        "T3 100 parallel steps (against 100 × T1)",
        "ms",
        [a for a, _ in pairs],
        [b for _, b in pairs],
        "≤ 0.3×",
    )


def t4() -> Iterator[Figure]:
    """Long history: 10,000 sequential steps against 1,000."""
    with fluvial("process", APP) as ours:
        ours.play(workflow="in_sequence", steps=100)
        short = [_median_run(ours, workflow="in_sequence", steps=1000) for _ in range(3)]
        long = [_median_run(ours, workflow="in_sequence", steps=10_000) for _ in range(3)]
    yield Figure("T4 10,000 steps (against 1,000)", "s", long, short, "≤ 10.5×")


def h1() -> Iterator[Figure]:
    """GET hello through the gateway, 32 connections: requests/s and CPU per request."""
    rates: list[tuple[float, float]] = []
    costs: list[tuple[float, float]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(fluvial("process", APP))
        url, pid = stack.enter_context(uvicorn_direct("main:app", APP))
        for _ in range(PAIRS):
            a, b = _load(ours.http, ours.pid), _load(url, pid)
            rates.append((a[0], b[0]))
            costs.append((a[1], b[1]))
    yield Figure("H1 requests/s", "/s", [a for a, _ in rates], [b for _, b in rates], "≥ 0.9×")
    yield Figure(
        "H1 CPU µs per request", "µs", [a for a, _ in costs], [b for _, b in costs], "≤ 1.3×"
    )


ROWS: dict[str, Callable[[], Iterator[Figure]]] = {
    "T1": t1,
    "T2": t2,
    "T3": t3,
    "T4": t4,
    "H1": h1,
    "H2": h2,
    "H3": h3,
    "H4": h4,
    "H5": h5,
    **COLD_STARTS,
    "D1": d1,
    "Z3": z3,
}


def _median_run(system: Fluvial, **query: str | int) -> float:
    runs: list[float] = system.play(**query)["runs"]
    return statistics.median(runs)


def _step_ms(system: Fluvial, *, runs: int) -> float:
    return 100 * _median_run(system, workflow="in_sequence", steps=10, runs=runs)


def _throughput(system: Fluvial, runs: int) -> tuple[float, float]:
    before = cpu_seconds(system.pid)
    answer = system.play(workflow="in_sequence", steps=5, runs=runs, in_flight=64)
    steps = 5 * runs
    return steps / answer["total"], (cpu_seconds(system.pid) - before) * 1000 / steps


def _sequential_tasks(system: Taskiq, tasks: int) -> float:
    """Return the median ms of sending one task and waiting for its result."""
    answer = system.play(tasks=tasks, in_flight=1)
    times: list[float] = answer["tasks"]
    return 1000 * statistics.median(times)


def _concurrent_tasks(system: Taskiq, tasks: int) -> tuple[float, float]:
    """Return (tasks/s, CPU seconds per 1,000 tasks) with 64 in flight, client included."""
    before = system.cpu_seconds()
    answer = system.play(tasks=tasks, in_flight=64)
    cpu = system.cpu_seconds() - before + answer["cpu"]
    return tasks / answer["total"], cpu * 1000 / tasks


def _load(url: str, pid: int) -> tuple[float, float]:
    """Return (requests/s, CPU µs per request) of 32 connections for 4 seconds (wrk)."""
    before = cpu_seconds(pid)
    host = "handoff.localhost"
    out = subprocess.run(
        ["wrk", "-t1", "-c32", "-d4s", "-H", f"Host: {host}", url],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    rate = float(out.split("Requests/sec:")[1].split()[0])
    requests = int(out.split(" requests in")[0].split()[-1])
    return rate, (cpu_seconds(pid) - before) * 1e6 / requests
