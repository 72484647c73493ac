"""Which variables dev takes from a folder's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_deploy.dev.variables import read_variables


def test_the_local_file_counts_more_and_reserved_names_are_left_out(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COLOUR=red\nSIZE=5\nPYTHONPATH=lib\n")
    (tmp_path / ".env.local").write_text("COLOUR=blue\n")
    variables, left_out = read_variables(tmp_path)

    assert variables == {"COLOUR": "blue", "SIZE": "5"}
    assert [text.partition(" is ")[0] for text in left_out] == ["PYTHONPATH"]


def test_without_files_there_are_none(tmp_path: Path) -> None:
    assert read_variables(tmp_path) == ({}, [])


def test_a_line_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnothing\n")

    with pytest.raises(InvalidRequestError, match="line 2: nothing has no value"):
        read_variables(tmp_path)
