"""`python -m tests.golden.write [NAME…] [--again]`: play scenarios and keep their logs.

Writes what is not there yet, for the version under development. A log of a released version is
never written again: whoever upgrades has runs that look like it. `--again` is for changes to a
version that nobody has.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.golden.logs import CURRENT, GoldenLog, path_of, write
from tests.golden.scenarios import CHILDREN, SCENARIOS, Scenario
from tests.unit.fluvial.conftest import APP, RUN, Player

_KEY = {"k1": bytes(range(32)).hex()}  # of `make_keys`


def main() -> None:
    """Write the logs that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", metavar="NAME", help="scenarios; default: all")
    parser.add_argument("--again", action="store_true", help="also those that are there already")
    asked = parser.parse_args()
    for name in asked.names or SCENARIOS:
        if asked.again or not path_of(CURRENT, name).exists():
            write(play(name, SCENARIOS[name]))
            sys.stdout.write(f"{path_of(CURRENT, name)}\n")


def play(name: str, scenario: Scenario) -> GoldenLog:
    """Play a scenario live, each input a turn of its own."""
    player = Player("live", durations=dict(scenario.durations), children=CHILDREN)
    asyncio.run(player.play(scenario.workflow, scenario.args, scenario.actions))
    return GoldenLog(
        version=CURRENT,
        name=name,
        workflow=scenario.workflow.name,
        app=APP,
        run_id=RUN,
        keys=_KEY,
        encoded=player.log,
    )


if __name__ == "__main__":
    main()
