"""CPU of the turn engine: µs per live turn, per carried step, and per replayed event.

    python tests/benchmarks/bench_turns.py [--steps 1000] [--profile] [--json FILE]

One process, no store and no sockets: this is what the SDK itself costs. Compare T1, T4 and T5 of
the targets: a live turn with its step ≤ 100 µs, a replay of 1,000 steps ≤ 8 ms, and no growth with
the length of the history.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from fluvial.encryption import AppKeys
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import Answer, StepRequest, TurnRequest
from fluvial.registry import registry
from fluvial.sealing import Binding
from fluvial.signatures import encode_call
from fluvial.steps import step
from fluvial.turns import LiveRuns
from fluvial.workflows import workflow

APP, RUN = "bench", "run_0000000000000000000000000a"
KEYS = AppKeys(APP, {"k1": bytes(32)}, "k1")
ROUNDS = 7


@step
async def add(total: int, number: int) -> int:
    return total + number


@workflow
async def sequential(count: int) -> int:
    total = 0
    for number in range(count):
        total = await add(total, number)
    return total


@workflow
async def parallel(count: int) -> int:
    return sum(await asyncio.gather(*(add(0, number) for number in range(count))))


def started(count: int) -> bytes:
    payload = KEYS.seal(Binding(APP, RUN, "input"), encode_call((count,), {}))
    return Event(EventType.RUN_STARTED, 1000, 0, payload).encode()


def turn_of(name: str, events: list[bytes], consumed: int, turn: bytes | None) -> TurnRequest:
    return TurnRequest(
        run_id=RUN, app=APP, workflow=name, turn_id=turn, consumed=consumed, now_ms=1, events=events
    )


async def execute(live: LiveRuns, event: Event, carry: bytes | None) -> Answer:
    return await live.step(
        StepRequest(
            run_id=RUN, app=APP, workflow="-", step="add", id=event.id, attempt=1,
            invocation="inv_x", timeout_ms=0, now_ms=2, carry=carry, input=event.payload,
        )
    )  # fmt: skip


async def run_sequential(count: int, *, carry: bool) -> tuple[list[bytes], list[float]]:
    """Return the log of a run and the seconds that each step with its turn took."""
    live = LiveRuns(registry, KEYS)
    log = [started(count)]
    answer = live.turn(turn_of("sequential", log, 0, None))
    log += answer.events
    seconds: list[float] = []
    for consumed in range(1, count + 1):
        begin = perf_counter()
        turn = answer.turn_id
        answer = await execute(live, decode_event(log[-1]), turn if carry else None)
        log += answer.events
        if not carry:
            answer = live.turn(turn_of("sequential", log[-1:], consumed, turn))
            log += answer.events
        seconds.append(perf_counter() - begin)
    return log, seconds


async def run_parallel(count: int) -> float:
    """Return the seconds that a gathered fan-out took."""
    live = LiveRuns(registry, KEYS)
    begin = perf_counter()
    answer = live.turn(turn_of("parallel", [started(count)], 0, None))
    ends = [(await execute(live, decode_event(e), None)).events[0] for e in answer.events]
    answer = live.turn(turn_of("parallel", ends, 1, answer.turn_id))
    assert decode_event(answer.events[-1]).type is EventType.RUN_COMPLETED
    return perf_counter() - begin


def replay(log: list[bytes], count: int) -> float:
    """Return the seconds that a replay of all but the last step took."""
    live = LiveRuns(registry, KEYS)
    gc.collect()
    begin = perf_counter()
    answer = live.turn(turn_of("sequential", log[:-2], count, None))
    seconds = perf_counter() - begin
    assert answer.outcome == "ok", answer.reason
    return seconds


def median_of(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(ROUNDS))


def measure(count: int) -> dict[str, float]:
    asyncio.run(run_sequential(count, carry=True))  # warm up
    log, carried = asyncio.run(run_sequential(count, carry=True))
    _, separate = asyncio.run(run_sequential(count, carry=False))
    tenth = max(1, count // 10)
    replayed = median_of(lambda: replay(log, count))
    fan_out = median_of(lambda: asyncio.run(run_parallel(count)))
    return {
        "steps": count,
        "carried_step_us": statistics.median(carried) * 1e6,
        "step_and_turn_us": statistics.median(separate) * 1e6,
        "last_tenth_over_first": statistics.median(carried[-tenth:])
        / statistics.median(carried[:tenth]),
        "replay_ms": replayed * 1e3,
        "replayed_event_us": replayed / (2 * count) * 1e6,
        "gathered_step_us": fan_out / count * 1e6,
    }


def profile(count: int) -> None:
    log, _ = asyncio.run(run_sequential(count, carry=True))
    profiler = cProfile.Profile()
    profiler.runcall(replay, log, count)
    pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.profile:
        profile(options.steps)
    report = measure(options.steps)
    for name, value in report.items():
        sys.stdout.write(f"{name:24} {value:10.2f}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
