"""Compares policies on traces: `python -m tests.simulation [--seconds 600] [--trace FILE]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.simulation.comparing import compare
from tests.simulation.traces import TRACES, Request, recorded


def main() -> None:
    """Play each trace with each policy, and print what each did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="of each synthetic trace")
    parser.add_argument("--per-second", type=float, default=50.0, help="mean rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cold", type=float, default=0.1, help="seconds of a start")
    parser.add_argument("--most", type=int, default=20, help="instances at once")
    parser.add_argument("--trace", type=Path, help="a recorded one: a JSON object a line")
    options = parser.parse_args()
    traces: dict[str, list[Request]] = {}
    if options.trace is not None:
        traces[options.trace.name] = recorded(options.trace)
    else:
        for name, (arrivals, work) in TRACES.items():
            traces[name] = arrivals(
                options.seed, seconds=options.seconds, per_second=options.per_second, work=work
            )
    columns = ("trace", "policy", "requests", "refused", "cold starts", "most instances")
    table = Table(*columns, "wait p50 ms", "wait p99 ms", "instance-seconds")
    for name, trace in traces.items():
        for policy, report in compare(trace, cold_seconds=options.cold, most=options.most).items():
            table.add_row(
                name,
                policy,
                str(report.requests),
                str(report.refused),
                str(report.cold_starts),
                str(report.most_instances),
                f"{1000 * report.wait(0.5):.1f}",
                f"{1000 * report.wait(0.99):.0f}",
                f"{report.instance_seconds:.0f}",
            )
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
