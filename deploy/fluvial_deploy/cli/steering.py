"""`fluvial runs cancel|terminate|pause|resume|wake|retry|tag|delete`: what runs are asked to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json, Run, tags_of
from fluvial_deploy.cli.output import data_json, say

if TYPE_CHECKING:
    from fluvial.client import Client

Reason = Annotated[str, typer.Option(help="Goes into the log.")]


@reported
def cancel(run: Run, reason: Reason = "", as_json: Json = False) -> None:
    """End a run after its clean-up code."""
    _steer(run, "cancelling", lambda client: client.cancel(run, reason), as_json=as_json)


@reported
def terminate(run: Run, reason: Reason = "", as_json: Json = False) -> None:
    """End a run at once."""
    _steer(run, "terminating", lambda client: client.terminate(run, reason), as_json=as_json)


@reported
def pause(run: Run, reason: Reason = "", as_json: Json = False) -> None:
    """Start nothing more of a run until it is resumed."""
    _steer(run, "pausing", lambda client: client.pause(run, reason), as_json=as_json)


@reported
def resume(
    run: Run,
    deployment: Annotated[
        str | None,
        typer.Option(metavar="dpl_…|latest", help="Where it goes on; latest: production."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a paused run go on, on another deployment if you name one."""
    with connect() as client:
        goes_on_at = client.resume(run, deployment=deployment)
    if as_json:
        data_json({"run_id": run, "asked": "resuming", "deployment": goes_on_at})
    else:
        say(f"resuming {run} on {goes_on_at}")


@reported
def wake(
    run: Run,
    timer: Annotated[
        int | None, typer.Option(min=1, help="Only this one; a timeout too. `runs why` names it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """End a run's sleeps now; let one begin whose start is delayed."""
    _steer(run, "waking", lambda client: client.wake(run, timer=timer), as_json=as_json)


@reported
def retry(run: Run, as_json: Json = False) -> None:
    """Make the attempts of steps now that wait for their time."""
    _steer(run, "retrying", lambda client: client.retry(run), as_json=as_json)


@reported
def tag(
    run: Run,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Tags to set.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a tag away; again for more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the tags by which a run is found."""
    change = {**tags_of(tags, "a tag"), **dict.fromkeys(remove or [], None)}
    if not change:
        raise InvalidRequestError("say which tags: NAME=VALUE to set one, --remove NAME to drop it")
    _steer(run, "tagging", lambda client: client.tag(run, change), as_json=as_json)


@reported
def delete(run: Run, as_json: Json = False) -> None:
    """Delete a run that has ended, with its log, for good."""
    with connect() as client:
        client.delete_run(run)
    data_json({"run_id": run, "deleted": True}) if as_json else say(f"deleted {run}")


def _steer(run: str, doing: str, steer: Callable[[Client], None], *, as_json: bool) -> None:
    with connect() as client:
        steer(client)
    data_json({"run_id": run, "asked": doing}) if as_json else say(f"{doing} {run}")
