"""The failure table of the documentation, made of what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.failures.case import Seen

PAGE: Final = Path(__file__).parents[2] / "docs" / "failures.md"
BEGIN: Final = "<!-- the table below is written by `make failures` -->\n"
END: Final = "<!-- end of the table -->\n"
_HEAD: Final = (
    "| what the code does | its caller | a GET beside it | a POST beside it | the instance | "
    "the app's log | the next request |\n|---|---|---|---|---|---|---|\n"
)


def table_of(seen: Mapping[str, Seen]) -> str:
    """Return the rows in Markdown."""
    return _HEAD + "".join(_row(name, each) for name, each in seen.items())


def written_table(page: str) -> str:
    """Return the table that a page has."""
    return page.partition(BEGIN)[2].partition(END)[0].strip("\n") + "\n"


def with_table(page: str, table: str) -> str:
    """Return a page with another table."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def _row(name: str, seen: Seen) -> str:
    cells = (
        name,
        seen.caller,
        seen.safe_neighbour,
        seen.unsafe_neighbour,
        seen.instance,
        seen.log,
        seen.afterwards,
    )
    return f"| {' | '.join(cells)} |\n"
