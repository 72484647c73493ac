"""`python -m tests.feature_matrix REPORT`: what the feature matrix claims was tested, and passed.

Every cell of the column "Fluvial" in `docs/feature-matrix.md` names a test, or says `no`. REPORT is
what `pytest --junitxml` wrote. A claim is false if its test does not exist, failed or was skipped,
and the matrix is wrong if a cell names nothing.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

MATRIX: Final = Path(__file__).parents[1] / "docs" / "feature-matrix.md"
COLUMN: Final = "Fluvial"
_TEST: Final = re.compile(r"`([\w/]+\.py::test_\w+)`")


def read_cells(text: str) -> Iterator[tuple[str, str]]:
    """Yield each feature with its cell in our column."""
    column: int | None = None
    for line in text.splitlines():
        if not line.startswith("|"):
            column = None
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if column is None:
            column = cells.index(COLUMN) if COLUMN in cells else -1
        elif column >= 0 and set(cells[0]) - set("-: "):
            yield cells[0], cells[column]


def read_outcomes(report: str) -> dict[str, set[str]]:
    """Return what became of each test, by `folder/file.py::name` below `tests/`."""
    outcomes: dict[str, set[str]] = defaultdict(set)
    for case in ElementTree.fromstring(report).iter("testcase"):
        path = case.attrib["classname"].removeprefix("tests.").replace(".", "/")
        name = case.attrib["name"].partition("[")[0]
        outcome = next((child.tag for child in case if child.tag != "properties"), "passed")
        outcomes[f"{path}.py::{name}"].add(outcome)
    return dict(outcomes)


def find_false_claims(matrix: str, report: str) -> list[str]:
    """Return a line for each cell that does not hold."""
    outcomes = read_outcomes(report)
    problems: list[str] = []
    for feature, cell in read_cells(matrix):
        tests = _TEST.findall(cell)
        if not tests and not cell.startswith("no"):
            problems.append(f"{feature}: names no test: {cell}")
        for test in tests:
            became = outcomes.get(test, {"not run"})
            if became != {"passed"}:
                problems.append(f"{feature}: {test}: {', '.join(sorted(became))}")
    return problems


def main() -> int:
    """Tell what does not hold, and return 1 if anything does not."""
    matrix = MATRIX.read_text()
    problems = find_false_claims(matrix, Path(sys.argv[1]).read_text())
    for problem in problems:
        print(problem)
    claims = sum(bool(_TEST.search(cell)) for _, cell in read_cells(matrix))
    print(f"{claims} features of {MATRIX.name} are tested; {len(problems)} claims do not hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
