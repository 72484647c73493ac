from __future__ import annotations

import json

from fluvial.errors import FluvialError, RunNotFoundError, UnavailableError
from fluvial_gateway.problems import (
    ProblemError,
    WorkflowNotFoundError,
    internal_problem,
    problem_of,
)


def test_error_becomes_the_problem_of_its_code() -> None:
    problem = problem_of(RunNotFoundError("run_x"))

    assert problem.status == 404
    assert json.loads(problem.body())["type"] == "urn:fluvial:problem:run_not_found"


def test_problem_carries_its_extras() -> None:
    assert problem_of(WorkflowNotFoundError("a", "dpl_1", ["b"])).members["workflows"] == ["b"]
    assert problem_of(ProblemError("too_large", "x", extra={"limit": 1})).members["limit"] == 1


def test_unavailable_says_when_to_come_again() -> None:
    class NewError(UnavailableError):
        code = "something_new"

    for error in (UnavailableError("x"), NewError("x")):
        assert problem_of(error).status == 503
        assert "retry-after" in problem_of(error).headers


def test_text_of_an_unknown_error_is_not_told() -> None:
    problem = problem_of(FluvialError("secret"))

    assert problem.status == 500
    assert "secret" not in problem.body().decode()
    assert problem.members["code"] == internal_problem().members["code"]


def test_text_that_is_no_utf8_does_not_break_the_answer() -> None:
    assert b"?" in problem_of(ProblemError("invalid_request", "\ud800")).body()
