"""`fluvial runs dead-letters|redrive`: runs that the platform has paused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Json, Tags, tags_of
from fluvial_deploy.cli.output import data_json, say, table

if TYPE_CHECKING:
    from fluvial.client import Client

_COLUMNS = ("run_id", "app", "workflow", "code", "paused_at", "reason")
_REASON_CHARACTERS = 80

OfApp = Annotated[str | None, typer.Option("--app", help="Only of this app.")]
OfWorkflow = Annotated[str | None, typer.Option("--workflow", help="Only of this workflow.")]
Code = Annotated[
    list[str] | None,
    typer.Option(help="Only in this trouble, such as poison; again, or with commas, for more."),
]
Since = Annotated[
    str | None, typer.Option(metavar="AGE|TIME", help="Only begun since: 2h, or a time.")
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until", "--older-than", metavar="AGE|TIME", help="Only begun before: 2h, or a time."
    ),
]
Limit = Annotated[int, typer.Option(min=1, max=100_000, help="How many at most.")]


@reported
def dead_letters(
    app: OfApp = None,
    workflow: OfWorkflow = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    tag: Tags = None,
    limit: Limit = 100,
    as_json: Json = False,
) -> None:
    """List runs that the platform has paused, with the reason and since when."""
    with connect() as client:
        found = list(
            client.dead_letters(
                app=app,
                workflow=workflow,
                code=code or None,
                since=since,
                until=until,
                tags=tags_of(tag),
                limit=limit,
            )
        )
    if as_json:
        data_json({"dead_letters": found})
        return
    table([{**one, "reason": _gist(one)} for one in found], _COLUMNS, as_json=False)


@reported
def redrive(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="One run; else all that the filters fit.")
    ] = None,
    app: OfApp = None,
    workflow: OfWorkflow = None,
    code: Code = None,
    since: Since = None,
    until: Until = None,
    tag: Tags = None,
    deployment: Annotated[
        str | None,
        typer.Option(metavar="dpl_…|latest", help="Where they go on; latest: production."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    limit: Limit = 1000,
    as_json: Json = False,
) -> None:
    """Let dead letters go on, on another deployment if you name one."""
    filters: dict[str, Any] = {
        "app": app,
        "workflow": workflow,
        "code": code or None,
        "since": since,
        "until": until,
    }
    if (run is None) is not any([*filters.values(), tag]):
        raise InvalidRequestError("name one run, or say which with --app, --code and the like")
    with connect() as client:
        if run is not None:
            chosen = [run]
        else:
            found = client.dead_letters(**filters, tags=tags_of(tag), limit=limit)
            chosen = [str(letter["run_id"]) for letter in found]
            if chosen and not dry_run and not yes:
                _confirm(len(chosen))
        done = [] if dry_run else [_redriven(client, one, deployment) for one in chosen]
    _tell(chosen, done, is_dry=dry_run, as_json=as_json)


def _confirm(count: int) -> None:
    if not sys.stdin.isatty():
        raise InvalidRequestError(f"{count} runs would go on: say --yes, or --dry-run to see which")
    typer.confirm(f"Let {count} runs go on?", abort=True, err=True)


def _redriven(client: Client, run_id: str, deployment: str | None) -> dict[str, Any]:
    try:
        goes_on_at = client.resume(run_id, deployment=deployment)
    except FluvialError as error:
        return {"run_id": run_id, "error": str(error)}
    return {"run_id": run_id, "deployment": goes_on_at}


def _tell(chosen: list[str], done: list[dict[str, Any]], *, is_dry: bool, as_json: bool) -> None:
    failed = [one for one in done if "error" in one]
    if as_json:
        data_json({"matched": chosen, "redriven": done, "dry_run": is_dry})
    else:
        table([{"run_id": run_id} for run_id in chosen], ("run_id",), as_json=False)
        for one in failed:
            say(f"{one['run_id']}: {one['error']}")
        if is_dry:
            say(f"these {len(chosen)} would go on")
        else:
            say(
                f"redriven: {len(done) - len(failed)}" + (f", not: {len(failed)}" if failed else "")
            )
    if failed:
        raise CommandError(f"{len(failed)} of {len(done)} could not go on", ExitCode.FAILED)


def _gist(letter: dict[str, Any]) -> str:
    line = str(letter.get("reason") or "").partition("\n")[0]
    return line if len(line) <= _REASON_CHARACTERS else line[:_REASON_CHARACTERS] + "…"
