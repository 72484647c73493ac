"""`fluvial promote` and `fluvial rollout …`: production moves at once, or in stages."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Deployment, Json
from fluvial_deploy.cli.output import data, data_json, say, show

rollout = typer.Typer(help="Rollouts: production that moves in stages.", no_args_is_help=True)


@reported
def promote(
    app: App,
    deployment: Deployment,
    stages: Annotated[
        str | None,
        typer.Option(metavar="P,P,…", help="In stages: percent of clients, such as 5,25,50."),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(metavar="SPAN", help="How long a stage lasts; default: until approved."),
    ] = None,
    percent: Annotated[
        int | None, typer.Option(min=1, max=99, help="One stage of so many percent of clients.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a deployment an app's production, at once or in stages."""
    chosen = _stages(stages, percent)
    if every is not None and not chosen:
        raise InvalidRequestError("--every is about stages: add --stages or --percent")
    with connect() as client:
        if not chosen:
            moved = client.promote(app, deployment)
            data_json(moved) if as_json else data(str(moved.get("production")))
            return
        started = client.start_rollout(app, deployment, chosen, every=every)
    _tell(started, as_json=as_json)


@rollout.command("show")
@reported
def show_rollout(app: App, as_json: Json = False) -> None:
    """Show the rollout under way, or how the last one ended."""
    with connect() as client:
        show(client.rollout(app), as_json=as_json)


@rollout.command("approve")
@reported
def approve(app: App, as_json: Json = False) -> None:
    """Begin the next stage now; behind the last one, move production."""
    with connect() as client:
        _tell(client.approve_rollout(app), as_json=as_json)


@rollout.command("abort")
@reported
def abort(
    app: App,
    reason: Annotated[str, typer.Option(help="Why; it is shown to whoever asks.")] = "",
    as_json: Json = False,
) -> None:
    """Send all clients to the old deployment again."""
    with connect() as client:
        _tell(client.abort_rollout(app, reason=reason), as_json=as_json)


def _stages(stages: str | None, percent: int | None) -> list[int]:
    if stages is None:
        return [] if percent is None else [percent]
    if percent is not None:
        raise InvalidRequestError("--stages and --percent are two ways to say one thing: use one")
    parts = [part.strip().removesuffix("%") for part in stages.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidRequestError(f"--stages must be percentages such as 5,25,50, got {stages!r}")
    return [int(part) for part in parts]


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        data_json(found)
    elif found["state"] == "active":
        following = found["next_at"] or f"`fluvial rollout approve {found['app']}`"
        say(f"{found['percent']} % of clients are on {found['deployment']}; next: {following}")
    elif found["state"] == "completed":
        say(f"{found['deployment']} is production")
    else:
        say(f"aborted: all clients are on {found['production']} ({found['reason']})")
