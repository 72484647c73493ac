"""`fluvial hooks resume`: answer a run that waits."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data, data_json
from fluvial_deploy.cli.start import parse_json

hooks = typer.Typer(help="Hooks: runs that wait for something outside.", no_args_is_help=True)


@hooks.callback()
def group() -> None:
    """Hooks: runs that wait for something outside."""


@hooks.command("resume")
@reported
def resume(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The hook's token.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="What the run is told.")] = "null",
    app: Annotated[
        str | None, typer.Option(help="The app; needed where there is more than one.")
    ] = None,
    resume_id: Annotated[
        str | None, typer.Option(help="Deliver once: equal ids are one delivery.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Deliver a payload to an open hook; print the run's id."""
    value = parse_json(payload, "the payload")
    with connect() as client:
        name = app or _only([str(found["app"]) for found in client.apps()])
        answer = client.resume_hook(name, token, value, resume_id=resume_id)
    data_json(answer) if as_json else data(str(answer.get("run_id", "")))


def _only(apps: list[str]) -> str:
    if len(apps) != 1:
        known = ", ".join(apps) or "none"
        raise InvalidRequestError(f"say which app the hook belongs to with --app (known: {known})")
    return apps[0]
