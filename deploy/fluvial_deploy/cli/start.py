"""`fluvial start`: begin a run."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json, Tags, tags_of
from fluvial_deploy.cli.output import data, data_json, say

if TYPE_CHECKING:
    from fluvial.client import Started


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
    delay: Annotated[
        str | None, typer.Option(metavar="SPAN", help='Begin so much later, such as "1h 30m".')
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Begin then: 2026-01-31T12:00:00Z.")
    ] = None,
    deadline: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Cancel it if it has not ended by then.")
    ] = None,
    tag: Tags = None,
    priority: Annotated[
        int | None, typer.Option(help="-100 to 100: greater ones go first where runs queue.")
    ] = None,
    retention: Annotated[
        str | None, typer.Option(metavar="SPAN", help="Keep it so long once it has ended.")
    ] = None,
    deployment: Annotated[
        str | None, typer.Option(metavar="dpl_…", help="Start it there; default: production.")
    ] = None,
    singleton: Annotated[
        str | None, typer.Option(metavar="TEXT", help="At most one live run of the app has it.")
    ] = None,
    on_conflict: Annotated[
        Literal["reject", "existing", "replace"],
        typer.Option(help="What to do where another run has the singleton."),
    ] = "reject",
    as_json: Json = False,
) -> None:
    """Start a run of a workflow; print its id."""
    from fluvial.options import StartOptions

    values = [parse_json(text, "an argument") for text in arguments or []]
    named: Any = parse_json(keywords, "--kwargs") if keywords else {}
    if not isinstance(named, dict):
        raise InvalidRequestError(f"--kwargs must be a JSON object, got {keywords}")
    options = StartOptions(
        delay=delay,
        at=None if at is None else parse_time(at, "--at"),
        deadline=deadline,
        tags=tags_of(tag),
        priority=priority,
        retention=retention,
        singleton=singleton,
        on_conflict=on_conflict,
    )
    with connect() as client:
        started = client.start(
            app,
            workflow,
            values,
            cast("dict[str, Any]", named),
            key=key,
            options=options,
            deployment=deployment,
        )
    if started.outcome == "existing":
        say(f"singleton {singleton!r} is alive: this is its run")
    show_started(started, key, as_json=as_json)


def show_started(started: Started, key: str | None, *, as_json: bool) -> None:
    """Print the id of a run that was started."""
    if started.outcome == "duplicate":
        say(f"key {key!r} was used before: this is that run")
    if as_json:
        data_json({"run_id": started.run_id, "outcome": started.outcome})
    else:
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


def parse_time(text: str, what: str) -> datetime:
    """Return a moment.

    Raises:
        InvalidRequestError: it is none, or says no offset; the message names `what`.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequestError(
            f"{what}: {text!r} is no time such as 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        raise InvalidRequestError(f"{what}: {text!r} has no offset: write {text}Z for UTC")
    return moment
