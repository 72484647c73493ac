"""`fluvial crons …`: what starts runs by the clock."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json, say, show, table

crons = typer.Typer(help="Crons: runs that are started by the clock.", no_args_is_help=True)
Cron = Annotated[str, typer.Argument(metavar="CRON", help="The cron's name.")]
_COLUMNS = (
    *("app", "cron", "schedule", "timezone", "next_tick"),
    *("last_tick", "last_outcome", "last_run", "paused"),
)


@crons.command("ls")
@reported
def list_crons(
    app: Annotated[str | None, typer.Argument(metavar="[APP]", help="Only of this app.")] = None,
    as_json: Json = False,
) -> None:
    """List the crons of production deployments."""
    with connect() as client:
        table(client.crons(app), _COLUMNS, as_json=as_json)


@crons.command("show")
@reported
def show_cron(app: App, cron: Cron, as_json: Json = False) -> None:
    """Show one cron, and what became of its last ticks."""
    with connect() as client:
        found = client.cron(app, cron)
    if as_json:
        data_json(found)
        return
    recent = found.pop("recent")
    show(found, as_json=False)
    if recent:
        data("")
        table(recent, ("tick", "outcome", "count", "run_id", "reason"), as_json=False)


@crons.command("next")
@reported
def next_ticks(
    app: App,
    cron: Cron,
    count: Annotated[int, typer.Option("-n", min=1, max=100, help="How many.")] = 5,
    as_json: Json = False,
) -> None:
    """Print when the next ticks are due."""
    with connect() as client:
        ticks = client.cron_ticks(app, cron, limit=count)
    if as_json:
        data_json(ticks)
        return
    for tick in ticks:
        data(tick)


@crons.command("pause")
@reported
def pause(app: App, cron: Cron, as_json: Json = False) -> None:
    """Let no tick start a run until the cron is resumed."""
    with connect() as client:
        _tell(client.pause_cron(app, cron), f"{cron} is paused", as_json=as_json)


@crons.command("resume")
@reported
def resume(app: App, cron: Cron, as_json: Json = False) -> None:
    """Let a cron go on with its next tick."""
    with connect() as client:
        found = client.resume_cron(app, cron)
    _tell(found, f"{cron} comes next at {found['next_tick']}", as_json=as_json)


@crons.command("trigger")
@reported
def trigger(
    app: App,
    cron: Cron,
    key: Annotated[str | None, typer.Option(help="Trigger once: equal keys are one run.")] = None,
    as_json: Json = False,
) -> None:
    """Start a run now, outside the schedule; print its id."""
    with connect() as client:
        started = client.trigger_cron(app, cron, key=key)
    if as_json:
        data_json({"run_id": started.run_id, "outcome": started.outcome})
    else:
        data(started.run_id)


def _tell(found: dict[str, Any], text: str, *, as_json: bool) -> None:
    data_json(found) if as_json else say(text)
