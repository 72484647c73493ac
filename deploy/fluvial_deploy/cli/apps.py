"""`fluvial apps`, `fluvial deployments`, `promote` and `rollback`."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Deployment, Json
from fluvial_deploy.cli.output import data, data_json, show, table

apps = typer.Typer(help="Apps.", no_args_is_help=True)
deployments = typer.Typer(help="Deployments: versions of apps.", no_args_is_help=True)
_COLUMNS = ("deployment", "app", "aliases", "created_at", "interface", "workflows")


@apps.command("ls")
@reported
def list_apps(as_json: Json = False) -> None:
    """List apps."""
    with connect() as client:
        table(client.apps(), ("app", "url", "production", "created_at"), as_json=as_json)


@apps.command("show")
@reported
def show_app(app: App, as_json: Json = False) -> None:
    """Show one app."""
    with connect() as client:
        show(client.app(app), as_json=as_json)


@deployments.command("ls")
@reported
def list_deployments(
    app: Annotated[str | None, typer.Option(help="Only of this app.")] = None,
    as_json: Json = False,
) -> None:
    """List deployments, newest first."""
    with connect() as client:
        rows = client.deployments(app)
    table(rows, _COLUMNS, as_json=as_json)


@deployments.command("show")
@reported
def show_deployment(deployment: Deployment, as_json: Json = False) -> None:
    """Show one deployment."""
    with connect() as client:
        show(client.deployment(deployment), as_json=as_json)


@reported
def promote(app: App, deployment: Deployment, as_json: Json = False) -> None:
    """Make a deployment an app's production."""
    with connect() as client:
        moved = client.promote(app, deployment)
    data_json(moved) if as_json else data(str(moved.get("production")))


@reported
def rollback(
    app: App,
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Where to; default: the previous.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Go back to an app's previous production; print the deployment."""
    with connect() as client:
        moved = client.rollback(app, deployment)
    data_json(moved) if as_json else data(str(moved.get("production")))
