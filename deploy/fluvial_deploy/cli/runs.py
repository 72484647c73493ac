"""`fluvial runs ls|show|events|result`: what runs did."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Data, Json, Run, Tags, tags_of
from fluvial_deploy.cli.output import data, data_json, printable, say, show, table

if TYPE_CHECKING:
    from fluvial.client import Outcome

runs = typer.Typer(help="Runs of workflows.", no_args_is_help=True)
_PARTS = ("meta", "data", "unreadable")
_OF_DATA = ("input", "result")
_MAX_HOOKS = 20
_COLUMNS = ("run_id", "app", "workflow", "status", "created_at", "key", "tags")
_PAGE = 500  # runs that the platform tells at once


@runs.command("ls")
@reported
def list_runs(
    app: Annotated[str | None, typer.Option(help="Only of this app.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow.")] = None,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only with this status; again, or with commas, for more."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="AGE|TIME", help="Only begun since: 2h, or a time.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", "--older-than", metavar="AGE|TIME", help="Only begun before: 2h, or a time."
        ),
    ] = None,
    tag: Tags = None,
    deployment: Annotated[
        str | None, typer.Option(metavar="DPL", help="Only on this deployment.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only children of this run.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(metavar="RUN", help="Only this run and its children, and theirs.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on after an earlier list.")] = None,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    found: list[dict[str, Any]] = []
    with connect() as client:
        while True:
            page = client.runs(
                app=app,
                workflow=workflow,
                status=status or None,
                since=since,
                until=until,
                tags=tags_of(tag),
                deployment=deployment,
                parent=parent,
                root=root,
                cursor=cursor,
                limit=min(limit - len(found), _PAGE),
            )
            found += page["runs"]
            cursor = page["cursor"]
            if cursor is None or len(found) == limit:
                break
    if as_json:
        data_json({"runs": found, "cursor": cursor})
        return
    table([{**run, "tags": _tags_text(run["tags"])} for run in found], _COLUMNS, as_json=False)
    if cursor is not None:
        say(f"more: --cursor {cursor}")


@runs.command("show")
@reported
def show_run(run: Run, with_data: Data = False, as_json: Json = False) -> None:
    """Show one run."""
    with connect() as client:
        found = client.run(run, data=with_data)
        if not found["finished_at"]:
            hooks = client.hooks(run, data=with_data)
            found["hooks"] = list(itertools.islice(hooks, _MAX_HOOKS))
            found["waiting"] = client.waiting(run, data=with_data)["sentence"]
    if not as_json:
        hooks_shown = "\n".join(map(_hook_line, found.get("hooks", ())))
        found = _without_defaults({**found, "hooks": hooks_shown})
    show(found, as_json=as_json)


@runs.command("events")
@reported
def events(
    run: Run,
    with_data: Data = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the run has ended.")
    ] = False,
    start: Annotated[int, typer.Option(min=0, help="From this position on.")] = 0,
    as_json: Json = False,
) -> None:
    """Show the event log, one event a line."""
    with connect() as client:
        read = client.follow if follow else client.events
        _print_events(read(run, data=with_data, start=start), as_json=as_json)


@runs.command("result")
@reported
def result(
    run: Run,
    wait: Annotated[str, typer.Option(metavar="S", help="How long to wait for the end.")] = "60s",
    as_json: Json = False,
) -> None:
    """Print the result as JSON, after waiting for it."""
    from fluvial.durations import to_seconds

    seconds = to_seconds(wait, "--wait")
    with connect() as client:
        outcome = client.result(run, wait_seconds=seconds)
    if as_json:
        fields = {"run_id": run, "status": outcome.status}
        shown = {"result": outcome.result, "error": outcome.error}
        unreadable = {"unreadable": outcome.unreadable} if outcome.unreadable else {}
        data_json({**fields, **shown, **unreadable})
    _tell(outcome, seconds, as_json=as_json)


def _hook_line(hook: dict[str, Any]) -> str:
    metadata = hook.get("metadata")
    shown = "" if metadata is None else f"  {json.dumps(metadata, ensure_ascii=False)}"
    return f"{hook['id']}  {hook.get('name') or hook['token']}{shown}"


def _tags_text(tags: dict[str, str]) -> str | None:
    return " ".join(f"{name}={value}" for name, value in sorted(tags.items())) or None


def _without_defaults(run: dict[str, Any]) -> dict[str, Any]:
    """Return what is worth a line for a person; a result may well be null."""
    return {
        name: value
        for name, value in run.items()
        if name in _OF_DATA or (value not in (None, {}, "") and (name, value) != ("priority", 0))
    }


def _tell(outcome: Outcome, seconds: float, *, as_json: bool) -> None:
    if not outcome.is_final:
        raise CommandError(
            f"{outcome.run_id} is {outcome.status} after {seconds:g} s: wait longer with --wait",
            ExitCode.TIMED_OUT,
        )
    if outcome.withheld:
        raise CommandError(f"the result is withheld: {outcome.withheld}", ExitCode.NOT_ALLOWED)
    if outcome.unreadable:
        raise CommandError(
            f"{outcome.run_id} {outcome.status}, and its end cannot be read: {outcome.unreadable}",
            ExitCode.FAILED,
        )
    if outcome.status != "completed":
        reason = f": {outcome.error}" if outcome.error not in (None, outcome.status) else ""
        raise CommandError(f"{outcome.run_id} {outcome.status}{reason}", ExitCode.FAILED)
    if not as_json:
        data_json(outcome.result)


def _print_events(found: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for event in found:
        if as_json:
            data_json(event)
            continue
        parts = [f"{event['position']:>5}", str(event["at"]), str(event["type"])]
        meta, reason = _without_long_reason(event.get("meta") or {})
        shown = {**event, "meta": {name: meta[name] for name in meta if name != "schema"}}
        parts += [json.dumps(shown[part], ensure_ascii=False) for part in _PARTS if shown.get(part)]
        data("  ".join(parts))
        for line in reason:
            data(f"       {line}")


def _without_long_reason(meta: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return an event's meta, and apart from it the lines of a reason that has several."""
    lines = printable(str(meta.get("reason", ""))).splitlines()
    if len(lines) < 2:
        return meta, []
    return {key: value for key, value in meta.items() if key != "reason"}, lines
