"""`python -m tests.failures`: observe all failures, and write them into the documentation."""

from __future__ import annotations

from tests.failures.campaign import observe_all
from tests.failures.cases import CASES
from tests.failures.table import PAGE, table_of, with_table


def main() -> None:
    """Write the table anew."""
    found = observe_all(CASES)
    seen = {case.name: found[case.name] for case in CASES}
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), table_of(seen)), encoding="utf-8")


if __name__ == "__main__":
    main()
