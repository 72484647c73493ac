"""`fluvial runs rerun|fork|retry-failed`: other runs that do again what a run did, or a part."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json, Run
from fluvial_deploy.cli.start import parse_json, show_started

Where = Annotated[
    str | None,
    typer.Option("--deployment", metavar="dpl_…|latest", help="Where; default: the run's own."),
]
Key = Annotated[str | None, typer.Option(help="Do it once: with an equal key it is one run.")]
_SAME = "same"


@reported
def rerun(
    run: Run,
    given: Annotated[
        str,
        typer.Option(
            "--input",
            metavar="JSON|same",
            help="An array of arguments, or an object of keyword arguments.",
        ),
    ] = _SAME,
    deployment: Where = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Start a run as another one was started; print its id."""
    arguments, keywords = _input(given)
    with connect() as client:
        started = client.rerun(run, arguments, keywords, deployment=deployment, key=key)
    show_started(started, key, as_json=as_json)


@reported
def fork(
    run: Run,
    step: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="STEP",
            help="A step's id or name, as the events show it; 0: the start.",
        ),
    ],
    deployment: Where = None,
    key: Key = None,
    as_json: Json = False,
) -> None:
    """Start a run that goes on from a step of another one; print its id.

    What had ended before the step is kept; the step and what came after happen again.
    """
    wanted = int(step) if step.isdecimal() else step
    with connect() as client:
        started = client.fork(run, wanted, deployment=deployment, key=key)
    show_started(started, key, as_json=as_json)


@reported
def retry_failed(
    run: Run, deployment: Where = None, key: Key = None, as_json: Json = False
) -> None:
    """Start a run that goes on from the step of another one that failed last; print its id."""
    with connect() as client:
        started = client.retry_failed(run, deployment=deployment, key=key)
    show_started(started, key, as_json=as_json)


def _input(given: str) -> tuple[list[Any] | None, dict[str, Any] | None]:
    """Return arguments and keyword arguments; None and None: the same as before.

    Raises:
        InvalidRequestError: they are no JSON array and no JSON object.
    """
    if given == _SAME:
        return None, None
    value: Any = parse_json(given, "--input")
    if isinstance(value, list):
        return cast("list[Any]", value), None
    if isinstance(value, dict):
        return None, cast("dict[str, Any]", value)
    raise InvalidRequestError(f"--input must be a JSON array or object, or `same`, got {given}")
