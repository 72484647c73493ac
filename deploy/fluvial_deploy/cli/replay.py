"""`fluvial replay --check`: would runs go on with other code?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from fluvial_deploy.cli.checking import Selection, check_runs, show_notable, talk_over
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import say
from fluvial_deploy.cli.uploading import upload

_MAX_RUNS: Final = 100_000  # of one report


@reported
def replay(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The folder with the code: deployed, not promoted."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Replay logs, propose nothing, and report.")
    ] = False,
    deployment: Annotated[
        str | None, typer.Option(metavar="dpl_…", help="Instead of a folder: what is deployed.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The app's name, whatever the manifest says.")
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            min=1, max=_MAX_RUNS, help="Check the last N that have ended, not those that have not."
        ),
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Only runs of this workflow.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=_MAX_RUNS, help="How many at most.")
    ] = None,
    inputs: Annotated[
        bool, typer.Option("--inputs", help="Compare arguments and results of steps too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check whether live runs would go on with other code; exit code 1 if one would not."""
    if not check:
        raise CommandError("say --check: replay does nothing else", ExitCode.USAGE)
    if (directory is None) == (deployment is None):
        raise CommandError("name either a folder or --deployment dpl_…", ExitCode.USAGE)
    if directory is not None:
        deployed = upload(directory, name=name, promote=False)
        deployment = str(deployed.deployment["deployment"])
        say(f"registered {deployment}; production stays where it is")
    selection = Selection(last=last, workflow=workflow, limit=limit, inputs=inputs)
    checked = check_runs(str(deployment), selection)
    show_notable(checked, as_json=as_json)
    talk_over(checked)
    if checked.has_diverged:
        raise typer.Exit(ExitCode.FAILED)
