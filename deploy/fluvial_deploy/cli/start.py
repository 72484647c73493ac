"""`fluvial start`: begin a run."""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json, say


@reported
def start(
    app: App,
    workflow: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow's name.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JSON]...", help="Arguments, each as JSON."),
    ] = None,
    keywords: Annotated[
        str | None, typer.Option("--kwargs", metavar="JSON", help="Keyword arguments, an object.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Start once: equal keys are one run.")] = None,
    as_json: Json = False,
) -> None:
    """Start a run of a workflow; print its id."""
    values = [parse_json(text, "an argument") for text in arguments or []]
    named: Any = parse_json(keywords, "--kwargs") if keywords else {}
    if not isinstance(named, dict):
        raise InvalidRequestError(f"--kwargs must be a JSON object, got {keywords}")
    with connect() as client:
        started = client.start(app, workflow, values, cast("dict[str, Any]", named), key=key)
    if as_json:
        data_json({"run_id": started.run_id, "outcome": started.outcome})
        return
    if started.outcome == "duplicate":
        say(f"key {key!r} was started before: this is that run")
    data(started.run_id)


def parse_json(text: str, what: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        InvalidRequestError: it is not JSON; the message shows how text is written.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        quoted = json.dumps(text)
        raise InvalidRequestError(
            f"{what} must be JSON, got {text!r}; text is written with quotes: '{quoted}'"
        ) from error
