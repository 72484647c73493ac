"""`fluvial runs why`: what a run waits for, and what would move it."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json, Run
from fluvial_deploy.cli.output import data, data_json, printable


@reported
def why(
    run: Run,
    with_tokens: Annotated[
        bool,
        typer.Option("--data", help="Show secret tokens of hooks (needs the scope data:read)."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Say in a sentence what a run waits for, since when, and what would move it."""
    with connect() as client:
        found = client.waiting(run, data=with_tokens)
    data_json(found) if as_json else data(printable(str(found["sentence"])))
