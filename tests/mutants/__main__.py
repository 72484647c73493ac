"""`python -m tests.mutants`: try every mutant; for `make mutants`.

Exits with 1 unless each of them was killed. The tree itself is never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import TextIO, TypeVar

from tests.mutants.listing import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.trials import Copy, Run, Trial

T = TypeVar("T")
R = TypeVar("R")

UNMUTATED_SECONDS = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the mutants that the command line asks for."""
    options = _parser().parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.only or any(o in m.name for o in options.only)]
    if not chosen:
        print(f"no mutant is named like {', '.join(options.only)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    progress = sys.stderr if options.json else sys.stdout
    with TemporaryDirectory(prefix="mutants-") as folder:
        bench = _Bench(Path(folder), max(1, min(options.jobs, len(chosen))))
        usual = _try_unmutated(bench, chosen, progress)
        if usual is None:
            return 1
        trials = _try_all(bench, chosen, usual, progress)
    counts = Counter(trial.verdict for trial in trials)
    told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    print(f"{len(trials)} mutants: {told}; {time.monotonic() - began:.0f} s", file=progress)
    if options.json:
        print(json.dumps([trial.to_dict() for trial in trials], indent=2))
    return int(counts["killed"] < len(trials))


class _Bench:
    """Copies of the sources, and a thread for each."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._jobs = jobs
        self._free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(jobs):
            self._free.put(Copy(folder / str(number)))

    def map(self, function: Callable[[Copy, T], R], items: Sequence[T]) -> list[R]:
        """Call `function` with a copy of its own and each item; return the results in order."""

        def call(item: T) -> R:
            copy = self._free.get()
            try:
                return function(copy, item)
            finally:
                self._free.put(copy)

        with ThreadPoolExecutor(self._jobs) as threads:
            return list(threads.map(call, items))


def _try_unmutated(
    bench: _Bench, mutants: Sequence[Mutant], progress: TextIO
) -> dict[str, float] | None:
    """Return how many seconds each of the tests takes; None: one fails as it is."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    print(f"{len(tests)} groups of tests without a mutant …", file=progress, flush=True)

    def try_unmutated(copy: Copy, test: str) -> Run:
        run = copy.run([test], UNMUTATED_SECONDS)
        print(f"        {run.seconds:5.1f} s  {test}", file=progress, flush=True)
        return run

    runs = dict(zip(tests, bench.map(try_unmutated, tests), strict=True))
    failed = [(test, run) for test, run in runs.items() if run.code != 0]
    for test, run in failed:
        print(f"{test} fails without any mutant:\n{run.output}", file=progress)
    return None if failed else {test: run.seconds for test, run in runs.items()}


def _try_all(
    bench: _Bench, mutants: Sequence[Mutant], usual: dict[str, float], progress: TextIO
) -> list[Trial]:
    finished: SimpleQueue[None] = SimpleQueue()

    def try_out(copy: Copy, mutant: Mutant) -> Trial:
        trial = copy.try_out(mutant, sum(usual[test] for test in mutant.tests))
        finished.put(None)
        number = f"{finished.qsize()}/{len(mutants)}"
        line = f"{number:>7} {trial.verdict:<9} {trial.seconds:5.1f} s  {mutant.name}"
        print(f"{line}  ({trial.detail})", file=progress, flush=True)
        return trial

    return bench.map(try_out, mutants)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="those whose name has this"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many at a time (all processors)"
    )
    parser.add_argument("--json", action="store_true", help="tell the result as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
