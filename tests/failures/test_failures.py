"""What is seen of each way in which a program can fail, and that the documentation says it."""

from __future__ import annotations

import pytest

from tests.failures.campaign import observe_all
from tests.failures.case import Case, Seen
from tests.failures.cases import CASES
from tests.failures.table import PAGE, table_of, written_table


@pytest.fixture(scope="module")
def seen() -> dict[str, Seen]:
    return observe_all(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failure_is_seen_as_the_table_says(case: Case, seen: dict[str, Seen]) -> None:
    assert seen[case.name] == case.expected


def test_the_documentation_has_the_table() -> None:
    expected = {case.name: case.expected for case in CASES}

    assert written_table(PAGE.read_text("utf-8")) == table_of(expected)
