"""`python -m tests.escapes`: try everything in every tier, and write it into the documentation."""

from __future__ import annotations

import sys

from tests.escapes.observing import TIERS, observe
from tests.escapes.table import PAGE, table_of, with_table


def main() -> int:
    """Write the table anew; return 1 where this machine cannot give all tiers."""
    missing = [tier for tier in TIERS if not tier.is_possible]
    if missing:
        print(f"not possible here: {'; '.join(map(str, missing))}", file=sys.stderr)
        return 1
    table = table_of({tier: observe(tier) for tier in TIERS})
    PAGE.write_text(with_table(PAGE.read_text("utf-8"), table), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
