"""How a process ended, in the words of the invoker and of people."""

from __future__ import annotations

import pytest

from fluvial.ends import KILLED, describe_end, end_of_process


@pytest.mark.parametrize(
    ("exit_code", "end", "words"),
    [
        (0, "exit:0", "exit status 0"),
        (3, "exit:3", "exit status 3"),
        (-11, "signal:11", "SIGSEGV"),
        (-40, "signal:40", "signal 40"),
        (None, "signal:9", "SIGKILL"),
    ],
)
def test_an_end_is_told_in_words(exit_code: int | None, end: str, words: str) -> None:
    told = describe_end(end_of_process(exit_code))

    assert end_of_process(exit_code) == end
    assert told is not None
    assert told.endswith(words)


def test_being_killed_is_an_end_of_its_own() -> None:
    assert "was killed" in str(describe_end(KILLED))


@pytest.mark.parametrize("other", ["idle", "terminated", "", "exit:", "exit:3\nx", "signal:-1"])
def test_what_is_no_such_end_has_no_words(other: str) -> None:
    assert describe_end(other) is None
