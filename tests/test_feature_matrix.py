"""The checker of the feature matrix finds claims that do not hold."""

from __future__ import annotations

import pytest

from tests.feature_matrix import find_false_claims

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_good[one]"/>
<testcase classname="tests.unit.test_a" name="test_good[two]"><properties/></testcase>
<testcase classname="tests.unit.test_a" name="test_half[one]"/>
<testcase classname="tests.unit.test_a" name="test_half[two]"><skipped/></testcase>
<testcase classname="tests.unit.test_a" name="test_bad"><failure/></testcase>
</testsuite></testsuites>"""


def matrix_with(cell: str) -> str:
    legend = "| Legend |\n|---|\n| x |\n\n"
    return f"{legend}| Feature | Fluvial | B |\n|---|---|---|\n| F | {cell} | no |"


@pytest.mark.parametrize("cell", ["`unit/test_a.py::test_good`", "no", "no: later"])
def test_a_claim_with_a_test_that_passed_holds(cell: str) -> None:
    assert find_false_claims(matrix_with(cell), REPORT) == []


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("`unit/test_a.py::test_half`", "passed, skipped"),
        ("`unit/test_a.py::test_bad`", "failure"),
        ("`unit/test_a.py::test_gone`", "not run"),
        ("`unit/test_a.py::test_good`, `unit/test_b.py::test_good`", "not run"),
        ("yes", "names no test"),
        ("", "names no test"),
    ],
)
def test_a_claim_without_such_a_test_is_told(cell: str, problem: str) -> None:
    (told,) = find_false_claims(matrix_with(cell), REPORT)

    assert told.startswith("F: ")
    assert problem in told
