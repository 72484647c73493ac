"""Files in the `.env` format: what is read, and which line a person is sent to."""

from __future__ import annotations

from pathlib import Path

import pytest

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.env_files import MAX_FILE_BYTES, read_env_file

FILE = """\ufeff# a comment
PLAIN=one
export SHELL_STYLE=two

SINGLE='as # it $stands ${HERE}'
DOUBLE="two\\nlines"
TRAILING=value # said about it
EMPTY=
PLAIN=again
MANY="first
second"
"""


def test_a_file_is_read_as_other_tools_read_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(FILE)

    assert read_env_file(file) == {
        "PLAIN": "again",
        "SHELL_STYLE": "two",
        "SINGLE": "as # it $stands ${HERE}",
        "DOUBLE": "two\nlines",
        "TRAILING": "value",
        "EMPTY": "",
        "MANY": "first\nsecond",
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"A=1\nB='hunter2\n", r"\.env, line 2: expected NAME=VALUE"),
        (b"A=1\n\nB\n", r"\.env, line 3: B has no value"),
        (b"A=\xff\n", r"\.env is not text in UTF-8"),
        (b"#" * (MAX_FILE_BYTES + 1), r"larger than"),
    ],
    ids=["quote", "no-value", "encoding", "size"],
)
def test_a_line_that_is_none_is_named_without_its_value(
    tmp_path: Path, text: bytes, reason: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(text)

    with pytest.raises(InvalidRequestError, match=reason) as caught:
        read_env_file(file)
    assert "hunter2" not in str(caught.value)
