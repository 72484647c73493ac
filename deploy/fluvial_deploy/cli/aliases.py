"""`fluvial alias …`: names that lead to deployments of an app, beside its production."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Deployment, Json
from fluvial_deploy.cli.output import data, data_json, say, table

aliases = typer.Typer(
    help="Aliases: names that lead to deployments, beside production.", no_args_is_help=True
)
Alias = Annotated[str, typer.Argument(metavar="NAME", help="The alias's name.")]


@aliases.command("ls")
@reported
def list_aliases(app: App, as_json: Json = False) -> None:
    """List an app's aliases, production first."""
    with connect() as client:
        table(client.aliases(app), ("alias", "deployment", "url"), as_json=as_json)


@aliases.command("set")
@reported
def set_alias(app: App, alias: Alias, deployment: Deployment, as_json: Json = False) -> None:
    """Move an alias to a deployment, made if need be; print its URL."""
    with connect() as client:
        moved = client.set_alias(app, alias, deployment)
    data_json(moved) if as_json else data(str(moved["url"]))


@aliases.command("rm")
@reported
def remove_alias(app: App, alias: Alias, as_json: Json = False) -> None:
    """Remove an alias; its deployment stays."""
    with connect() as client:
        client.remove_alias(app, alias)
    if as_json:
        data_json({"app": app, "alias": alias, "removed": True})
    else:
        say(f"the alias {alias} of {app} is gone")


@aliases.command("history")
@reported
def history(
    app: App,
    alias: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only of this one.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100, help="How many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show how aliases moved, newest first: who, when, from where and where to."""
    with connect() as client:
        moves = client.history(app, alias, limit=limit)
    table(moves, ("at", "alias", "from", "to", "reason", "by"), as_json=as_json)
