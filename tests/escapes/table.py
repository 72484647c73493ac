"""The table of `docs/security.md`: which attempt reaches its aim in which tier."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.escapes.attempts import ATTEMPTS, Attempt
from tests.escapes.observing import Tier

PAGE: Final = Path(__file__).parents[2] / "docs" / "security.md"
BEGIN: Final = "<!-- the table below is written by `make escapes` -->\n"
END: Final = "<!-- end of the table -->\n"
REACHED: Final = "**reaches it**"
STOPPED: Final = "stopped"
MACHINES: Final = "the machine decides"


def cell(attempt: Attempt, tier: Tier, error: str) -> str:
    """Return what the table says of an attempt that ended so."""
    if tier.isolation != "jail" and attempt.undecided in ("always", tier.owner):
        return MACHINES
    return STOPPED if error else REACHED


def table_of(seen: Mapping[Tier, Mapping[str, str]]) -> str:
    """Return the table in Markdown."""
    lines = [("what code in an instance tries", *map(str, seen)), ("---",) * (len(seen) + 1)]
    for attempt in ATTEMPTS:
        cells = [cell(attempt, tier, errors[attempt.name]) for tier, errors in seen.items()]
        lines.append((attempt.name, *cells))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written_column(page: str, tier: Tier) -> dict[str, str]:
    """Return what a page says of a tier, by attempt."""
    text = page.partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n")]
    head, _, *body = [row for row in rows if row]
    place = head.index(str(tier))
    return {row[0]: row[place] for row in body}


def with_table(page: str, table: str) -> str:
    """Return a page with another table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"
