"""Which environment variables an app may have, and what a person who makes a mistake is told."""

from __future__ import annotations

import pytest

from fluvial.errors import InvalidRequestError
from fluvial.variables import MAX_ENVIRONMENT_BYTES, MAX_VARIABLES, check_variables


@pytest.mark.parametrize("name", ["A", "_", "DATABASE_URL", "a1", "N" * 128, "FLUVIALLY", "LDAP"])
def test_a_name_of_a_shell_is_taken(name: str) -> None:
    check_variables({name: "value\nwith lines"})


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "Ä", "A=B", "N" * 129, "A\n"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be the name of a variable"):
        check_variables({name: "x"})


@pytest.mark.parametrize(
    "name", ["FLUVIAL", "FLUVIAL_APP", "LD_PRELOAD", "PYTHONPATH", "PYTHON_X", "GLIBC_TUNABLES"]
)
def test_a_name_that_the_platform_or_a_loader_reads_is_reserved(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} is a reserved name"):
        check_variables({name: "x"})


@pytest.mark.parametrize("value", ["hunter2\0", "hunter2\ud800"])
def test_a_value_that_no_process_could_have_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(InvalidRequestError, match="the value of KEY") as caught:
        check_variables({"KEY": value})

    assert "hunter2" not in str(caught.value)


def test_names_and_values_are_bounded_together() -> None:
    most = {"A": "x" * (MAX_ENVIRONMENT_BYTES // 2 - 1), "B": "ü" * (MAX_ENVIRONMENT_BYTES // 4)}
    check_variables({**most, "B": most["B"][:-1]})
    check_variables({f"V{number}": "" for number in range(MAX_VARIABLES)})

    with pytest.raises(InvalidRequestError, match=f"{MAX_ENVIRONMENT_BYTES} bytes"):
        check_variables({**most, "C": ""})
    with pytest.raises(InvalidRequestError, match=f"{MAX_VARIABLES} variables"):
        check_variables({f"V{number}": "" for number in range(MAX_VARIABLES + 1)})
