"""`python -m tests.campaign`: many random schedules, on all processors; for `make campaign`."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Final

from tests.campaign.playing import Tally, play_seeds, shrink

FULL: Final = 100_000  # schedules at scale 1
CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a process tells of its seeds."""

    schedules: int
    hits: Counter[str]
    planned: int
    happened: int
    failure: str


def play_chunk(first: int, count: int) -> Chunk:
    """Play `count` seeds from `first` on."""
    tally: Tally = play_seeds(range(first, first + count))
    failure = "" if tally.failed is None else str(shrink(tally.failed))
    return Chunk(tally.schedules, tally.hits, tally.planned, tally.happened, failure)


def main() -> int:
    """Play, tell how it goes, and return 1 if a schedule failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help=f"1: {FULL:,} schedules")
    parser.add_argument("--first", type=int, default=1_000_000, help="the first seed")
    options = parser.parse_args()
    count = max(1, round(options.scale * FULL))
    firsts = range(options.first, options.first + count, CHUNK)
    sizes = [min(CHUNK, options.first + count - first) for first in firsts]
    began, hits, schedules, planned, happened = time.monotonic(), Counter[str](), 0, 0, 0
    with ProcessPoolExecutor() as processes:
        for chunk in processes.map(play_chunk, firsts, sizes):
            if chunk.failure:
                print(chunk.failure)
                processes.shutdown(cancel_futures=True)
                return 1
            hits.update(chunk.hits)
            schedules += chunk.schedules
            planned += chunk.planned
            happened += chunk.happened
            print(f"{schedules:,} schedules, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{happened:,} of {planned:,} planned faults happened; what hit: {dict(hits)}")
    return int(happened < 0.95 * planned)


if __name__ == "__main__":
    sys.exit(main())
