"""`fluvial runs cancel|terminate|pause|resume|wake|retry|tag|delete`: what runs are asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.choosing import Chosen, choosing, steer_many
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json, tags_of
from fluvial_deploy.cli.output import data_json, say

if TYPE_CHECKING:
    from fluvial.client import Client

_DOING: Final = {
    "cancel": "cancelling",
    "terminate": "terminating",
    "pause": "pausing",
    "wake": "waking",
    "retry": "retrying",
    "tag": "tagging",
}
Reason = Annotated[str, typer.Option(help="Goes into the log.")]


@reported
@choosing
def cancel(chosen: Chosen, reason: Reason = "", as_json: Json = False) -> None:
    """End a run, or all that are chosen, after its clean-up code."""
    _steer(
        chosen,
        "cancel",
        lambda client, run: client.cancel(run, reason),
        as_json=as_json,
        reason=reason or None,
    )


@reported
@choosing
def terminate(chosen: Chosen, reason: Reason = "", as_json: Json = False) -> None:
    """End a run, or all that are chosen, at once."""
    _steer(
        chosen,
        "terminate",
        lambda client, run: client.terminate(run, reason),
        as_json=as_json,
        reason=reason or None,
    )


@reported
@choosing
def pause(chosen: Chosen, reason: Reason = "", as_json: Json = False) -> None:
    """Start nothing more of a run, or of all that are chosen, until it is resumed."""
    _steer(
        chosen,
        "pause",
        lambda client, run: client.pause(run, reason),
        as_json=as_json,
        reason=reason or None,
    )


@reported
@choosing
def resume(
    chosen: Chosen,
    deployment: Annotated[
        str | None,
        typer.Option(metavar="dpl_…|latest", help="Where it goes on; latest: production."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a paused run, or all that are chosen, go on, on another deployment if you name one."""
    if chosen.is_many:
        steer_many(chosen, "resume", as_json=as_json, deployment=deployment)
        return
    run = str(chosen.run)
    with connect() as client:
        goes_on_at = client.resume(run, deployment=deployment)
    if as_json:
        data_json({"run_id": run, "asked": "resuming", "deployment": goes_on_at})
    else:
        say(f"resuming {run} on {goes_on_at}")


@reported
@choosing
def wake(
    chosen: Chosen,
    timer: Annotated[
        int | None, typer.Option(min=1, help="Only this one; a timeout too. `runs why` names it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """End a run's sleeps now, or of all that are chosen; let one begin whose start is delayed."""
    if chosen.is_many and timer is not None:
        raise InvalidRequestError("--timer is one of one RUN")
    _steer(chosen, "wake", lambda client, run: client.wake(run, timer=timer), as_json=as_json)


@reported
@choosing
def retry(chosen: Chosen, as_json: Json = False) -> None:
    """Make the attempts of steps now that wait for their time."""
    _steer(chosen, "retry", lambda client, run: client.retry(run), as_json=as_json)


@reported
@choosing
def tag(
    chosen: Chosen,
    tags: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Tags to set.")
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Take a tag away; again for more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the tags by which a run, or all that are chosen, are found."""
    if chosen.run is not None and "=" in chosen.run:  # it is a tag: options choose the runs
        tags, chosen = [chosen.run, *(tags or ())], replace(chosen, run=None)
    change = {**tags_of(tags, "a tag"), **dict.fromkeys(remove or [], None)}
    if not change:
        raise InvalidRequestError("say which tags: NAME=VALUE to set one, --remove NAME to drop it")
    _steer(chosen, "tag", lambda client, run: client.tag(run, change), as_json=as_json, tags=change)


@reported
@choosing
def delete(chosen: Chosen, as_json: Json = False) -> None:
    """Delete a run that has ended, or all that are chosen, with their logs, for good."""
    if chosen.is_many:
        steer_many(chosen, "delete", as_json=as_json)
        return
    run = str(chosen.run)
    with connect() as client:
        client.delete_run(run)
    data_json({"run_id": run, "deleted": True}) if as_json else say(f"deleted {run}")


def _steer(
    chosen: Chosen,
    action: str,
    steer: Callable[[Client, str], None],
    *,
    as_json: bool,
    **more: Any,
) -> None:
    if chosen.is_many:
        steer_many(chosen, action, as_json=as_json, **more)
        return
    run, doing = str(chosen.run), _DOING[action]
    with connect() as client:
        steer(client, run)
    data_json({"run_id": run, "asked": doing}) if as_json else say(f"{doing} {run}")
