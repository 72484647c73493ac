"""`fluvial hooks ls|resume`: see what runs wait for, and answer it."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Data, Json
from fluvial_deploy.cli.output import data, data_json, say, table
from fluvial_deploy.cli.start import parse_json

hooks = typer.Typer(help="Hooks: runs that wait for something outside.", no_args_is_help=True)
_COLUMNS = ("run_id", "id", "name", "token", "opened_at", "closes_at")


@hooks.callback()
def group() -> None:
    """Hooks: runs that wait for something outside."""


@hooks.command("ls")
@reported
def list_hooks(
    run: Annotated[str | None, typer.Option(metavar="RUN", help="Only of this run.")] = None,
    app: Annotated[str | None, typer.Option(help="Only of this app.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 100,
    with_data: Data = False,
    as_json: Json = False,
) -> None:
    """List open hooks; with --run RUN --data, their metadata too."""
    if with_data and run is None:
        raise InvalidRequestError("--data goes with --run RUN")
    with connect() as client:
        every = client.open_hooks(app) if run is None else client.hooks(run, data=with_data)
        found = list(itertools.islice(every, limit + 1))
    columns = (*_COLUMNS, "metadata") if with_data else _COLUMNS
    table(found[:limit], columns, as_json=as_json)
    if len(found) > limit:
        say("there are more: --limit")


@hooks.command("resume")
@reported
def resume(
    first: Annotated[
        str, typer.Argument(metavar="TOKEN", help="The hook's token; left out with --run.")
    ] = "",
    second: Annotated[str, typer.Argument(metavar="[JSON]", help="What the run is told.")] = "",
    app: Annotated[
        str | None, typer.Option(help="The app; needed where there is more than one.")
    ] = None,
    run: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run, where the token is not at hand.")
    ] = None,
    hook: Annotated[
        str | None, typer.Option(metavar="ID", help="With --run: the hook's id or name.")
    ] = None,
    resume_id: Annotated[
        str | None, typer.Option(help="Deliver once: equal ids are one delivery.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Deliver a payload to an open hook; print the run's id."""
    if (run is None) != (hook is None):
        raise InvalidRequestError(
            "--run RUN and --hook ID go together: `fluvial hooks ls` has both"
        )
    if run is not None and hook is not None:
        if second:
            raise InvalidRequestError("with --run and --hook no token is given")
        value = parse_json(first or "null", "the payload")
        with connect() as client:
            answer = client.send(run, hook, value, resume_id=resume_id, wait_seconds=0)
    else:
        if not first:
            raise InvalidRequestError("say which hook: TOKEN, or --run RUN --hook ID")
        value = parse_json(second or "null", "the payload")
        with connect() as client:
            name = app or _only([str(found["app"]) for found in client.apps()])
            answer = client.resume_hook(name, first, value, resume_id=resume_id)
    data_json(answer) if as_json else data(str(answer.get("run_id", "")))


def _only(apps: list[str]) -> str:
    if len(apps) != 1:
        known = ", ".join(apps) or "none"
        raise InvalidRequestError(f"say which app the hook belongs to with --app (known: {known})")
    return apps[0]
