"""Runs the performance table: `python -m tests.benchmarks.run [--only T1,T2] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import Figure, spread
from tests.benchmarks.rows import ROWS


def main() -> None:
    """Measure the chosen rows and print them beside their targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(ROWS), help="rows, such as T1,T2")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    console = Console(stderr=True)
    figures: list[Figure] = []
    for name in str(options.only).split(","):
        console.print(f"[bold]{name}[/]: {(ROWS[name].__doc__ or '').strip()}")
        for figure in ROWS[name]():
            figures.append(figure)
            console.print(
                f"    {figure.name}: {spread(figure.ours)} against {spread(figure.theirs)}"
            )
    Console().print(_table(figures))
    if options.json is not None:
        machine = {
            "python": platform.python_version(),
            "kernel": platform.release(),
            "cores": os.cpu_count(),
        }
        report = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
        options.json.write_text(json.dumps(report, indent=2))


def _table(figures: list[Figure]) -> Table:
    table = Table("what", "unit", "fluvial", "opponent", "ratio", "target")
    for figure in figures:
        ratios = spread(figure.ratios)
        columns = (spread(figure.ours), spread(figure.theirs), ratios, figure.target)
        table.add_row(figure.name, figure.unit, *columns)
    return table


if __name__ == "__main__":
    main()
