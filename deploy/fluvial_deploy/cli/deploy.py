"""`fluvial deploy`: a folder becomes a deployment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluvial_deploy.cli.checking import Selection, check_runs, talk_over
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data, data_json, say
from fluvial_deploy.cli.uploading import upload

if TYPE_CHECKING:
    from fluvial.client import Deployed


@reported
def deploy(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The app's folder.")],
    name: Annotated[
        str | None, typer.Option(help="The app's name, whatever the manifest says.")
    ] = None,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Leave production where it is.")
    ] = False,
    check_replay: Annotated[
        bool,
        typer.Option("--check-replay", help="Promote only if all live runs would go on with it."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Deploy a folder; print its URL."""
    promote = not no_promote
    deployed = upload(directory, name=name, promote=promote and not check_replay)
    if not deployed.created:
        say("nothing has changed: this is deployed already")
    elif check_replay:
        deployed = _checked(deployed, promote=promote)
    if as_json:
        result = {"url": deployed.url, "created": deployed.created}
        data_json({**result, "deployment": deployed.deployment})
    else:
        data(deployed.url)


def _checked(deployed: Deployed, *, promote: bool) -> Deployed:
    """Promote a deployment if no live run of its app would diverge on it.

    Raises:
        CommandError: one would; the deployment stays registered.
    """
    from fluvial.client import Deployed

    app, deployment = str(deployed.deployment["app"]), str(deployed.deployment["deployment"])
    checked = check_runs(deployment, Selection())
    talk_over(checked)
    if checked.has_diverged:
        raise CommandError(
            f"{checked.report.diverged} live runs would diverge, so production stays where it is;"
            f" look with `fluvial replay --check --deployment {deployment}`, and promote it all the"
            f" same with `fluvial promote {app} {deployment}`: runs stay where they are",
            ExitCode.FAILED,
        )
    if not promote:
        return deployed
    with connect() as client:
        moved = client.promote(app, deployment)
    return Deployed(deployed.deployment, str(moved.get("url", deployed.url)), created=True)
