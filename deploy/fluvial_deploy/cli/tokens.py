"""`fluvial token create`."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data, data_json, say

tokens = typer.Typer(help="Tokens for the control API.", no_args_is_help=True)


@tokens.callback()
def group() -> None:
    """Tokens for the control API."""


@tokens.command("create")
@reported
def create(
    scope: Annotated[
        list[str],
        typer.Option(
            help="admin, deploy, environment, runs:read, runs:write, data:read, keys or"
            " metrics:read; again for more."
        ),
    ],
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    as_json: Json = False,
) -> None:
    """Create a token and print it: it cannot be shown again."""
    with connect() as client:
        created = client.create_token(name, scope)
    if as_json:
        data_json(created)
        return
    say("keep it: it is not shown again")
    data(str(created["token"]))
