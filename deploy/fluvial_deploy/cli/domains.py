"""`fluvial domains …`: host names of an app beside those that the platform gives it."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json, say, table

domains = typer.Typer(
    help="Custom domains: host names that lead to an app's production.", no_args_is_help=True
)
Host = Annotated[str, typer.Argument(metavar="HOST", help="A DNS name: shop.example.com.")]


@domains.command("ls")
@reported
def list_domains(app: App, as_json: Json = False) -> None:
    """List an app's custom domains."""
    with connect() as client:
        table(client.domains(app), ("host", "url"), as_json=as_json)


@domains.command("add")
@reported
def add_domain(app: App, host: Host, as_json: Json = False) -> None:
    """Let a host name lead to an app's production; print its URL."""
    with connect() as client:
        added = client.add_domain(app, host)
    data_json(added) if as_json else data(str(added["url"]))


@domains.command("rm")
@reported
def remove_domain(app: App, host: Host, as_json: Json = False) -> None:
    """Remove a domain from an app."""
    with connect() as client:
        client.remove_domain(app, host)
    if as_json:
        data_json({"app": app, "host": host, "removed": True})
    else:
        say(f"{host} does not lead to {app} any more")
