"""`fluvial runs send|ask`: talking to live runs by the names of their hooks."""

from __future__ import annotations

from typing import Annotated

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Json, Run
from fluvial_deploy.cli.output import data, data_json
from fluvial_deploy.cli.start import parse_json

Name = Annotated[str, typer.Argument(metavar="NAME", help="The hook's name, or its id.")]
Value = Annotated[str, typer.Argument(metavar="[JSON]", help="What the run is told.")]
ResumeId = Annotated[
    str | None, typer.Option(help="Said once: equal ids are one thing that is said.")
]
Wait = Annotated[str, typer.Option(metavar="S", help="How long the hook may take to open.")]


@reported
def send(
    run: Run,
    name: Name,
    value: Value = "null",
    wait: Wait = "10s",
    resume_id: ResumeId = None,
    as_json: Json = False,
) -> None:
    """Hand a value to a run's hook; print the id of the run that has it."""
    from fluvial.durations import to_seconds

    told, seconds = parse_json(value, "the value"), to_seconds(wait, "--wait")
    with connect() as client:
        answer = client.send(run, name, told, resume_id=resume_id, wait_seconds=seconds)
    data_json(answer) if as_json else data(str(answer["run_id"]))


@reported
def ask(
    run: Run,
    name: Name,
    value: Value = "null",
    timeout: Annotated[
        str, typer.Option(metavar="S", help="How long the run may take to answer.")
    ] = "30s",
    wait: Wait = "10s",
    resume_id: ResumeId = None,
    as_json: Json = False,
) -> None:
    """Hand a value to a run's hook; print what the workflow answers, as JSON."""
    from fluvial.durations import to_seconds

    told = parse_json(value, "the value")
    seconds, opening = to_seconds(timeout, "--timeout"), to_seconds(wait, "--wait")
    with connect() as client:
        answer = client.ask(
            run, name, told, resume_id=resume_id, timeout_seconds=seconds, wait_seconds=opening
        )
    if as_json:
        data_json(answer)
    if withheld := answer.get("withheld"):
        raise CommandError(f"the answer is withheld: {withheld}", ExitCode.NOT_ALLOWED)
    if unreadable := answer.get("unreadable"):
        raise CommandError(
            f"the answer cannot be read: {unreadable.get('message')}", ExitCode.FAILED
        )
    if not as_json:
        data_json(answer.get("answer"))
