"""Streams on a whole platform: chunks and bytes a second, and the time from write to read.

    python -m tests.benchmarks.bench_streams [--durability process disk] [--rounds 3]

The step that writes and the handler that reads are in one instance: every chunk is sealed there,
goes through the gateway into the store, back through the gateway, and is opened there again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.systems import Fluvial, cpu_seconds, fluvial

BUNDLE = Path(__file__).parent / "streams_app"
FULL_SPEED = ((20_000, 8, 1), (20_000, 200, 1), (600, 64 * 1024, 1), (2_000, 8, 20))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--durability", nargs="+", default=["process", "disk"])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for durability in arguments.durability:
        with fluvial(durability, BUNDLE) as system:
            play(system, chunks=10, size=8)  # warm
            for chunks, size, readers in FULL_SPEED:
                began = cpu_seconds(system.pid)
                rounds = [
                    play(system, chunks=chunks, size=size, readers=readers)["seconds"]
                    for _ in range(arguments.rounds)
                ]
                cpu = (cpu_seconds(system.pid) - began) / arguments.rounds
                report_speed(durability, chunks, size, readers, rounds, cpu)
            for readers in (1, 20):
                paced = play(system, chunks=300, size=8, pause_ms=10, readers=readers)
                report_ways(durability, readers, sorted(paced["latencies_ms"]))


def play(system: Fluvial, **query: Any) -> dict[str, Any]:
    """Have a run written and read; return what was measured."""
    headers = {"host": "streams.localhost"}
    reply = httpx.get(f"{system.http}/play", params=query, headers=headers, timeout=280)
    answer: dict[str, Any] = reply.raise_for_status().json()
    return answer


def report_speed(
    durability: str,
    chunks: int,
    size: int,
    readers: int,
    seconds: list[float],
    cpu: float,
) -> None:
    median = statistics.median(seconds)
    rate, mebibytes = chunks / median, chunks * size / median / 2**20
    sys.stdout.write(
        f"{durability:8} {chunks:6} chunks of {size:6} bytes, {readers:3} reader(s): "
        f"{rate:8.0f} chunks/s {mebibytes:7.1f} MiB/s, "
        f"CPU {cpu / chunks / readers * 1e6:.0f} µs a chunk read\n"
    )


def report_ways(durability: str, readers: int, ways_ms: list[float]) -> None:
    median, p99 = ways_ms[len(ways_ms) // 2], ways_ms[int(len(ways_ms) * 0.99)]
    sys.stdout.write(
        f"{durability:8} write to read, 100 chunks/s, {readers:3} reader(s): "
        f"p50 {median:.2f} ms, p99 {p99:.2f} ms\n"
    )


if __name__ == "__main__":
    main()
