"""`fluvial logs`: what an app printed, from the log file on this machine."""

from __future__ import annotations

from collections import deque
from typing import Annotated

import typer

from fluvial_deploy.cli.connection import home_path
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json
from fluvial_deploy.up.home import Home


@reported
def logs(
    app: App,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many.")] = 100,
    as_json: Json = False,
) -> None:
    """Print the last lines of an app's log."""
    from fluvial.manifest import APP_NAME

    path = Home(home_path()).log(f"apps/{app}")
    if not APP_NAME.fullmatch(app) or not path.is_file():
        raise CommandError(
            f"{app} has no log on this machine (looked for {path})", ExitCode.NOT_FOUND
        )
    with path.open("r", encoding="utf-8", errors="replace") as file:
        for line in deque(file, maxlen=lines):
            data_json({"line": line.rstrip("\n")}) if as_json else data(line.rstrip("\n"))
