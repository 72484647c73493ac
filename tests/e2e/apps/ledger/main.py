"""Workflows whose steps write down, outside the platform, each time their body runs."""

from __future__ import annotations

import asyncio
import os

from fluvial import step, workflow


def _note(path: str, line: str) -> None:
    with open(path, "a", encoding="utf-8") as ledger:
        ledger.write(line + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())


@step
async def record(path: str, name: str, seconds: float) -> int:
    """Note the beginning and the end, with a wait between them; return a number made of `name`."""
    _note(path, f"start {name}")
    await asyncio.sleep(seconds)
    _note(path, f"end {name}")
    return sum(name.encode()) % 97


@workflow
async def braid(path: str, rounds: int, width: int, seconds: float) -> list[int]:
    """Rounds of parallel steps; each round's names depend on the results of the one before, which
    are nowhere but in this function."""
    totals = [0]
    for number in range(rounds):
        names = [f"{number}-{lane}-{totals[-1]}" for lane in range(width)]
        totals.append(sum(await asyncio.gather(*(record(path, n, seconds) for n in names))))
    return totals


@workflow
async def line(path: str, steps: int) -> int:
    """Steps one after the other."""
    total = 0
    for number in range(steps):
        total += await record(path, f"{number}-{total}", 0.0)
    return total
