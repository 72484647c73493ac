"""`fluvial keys …`: the keys that seal an app's data."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json, say, table

if TYPE_CHECKING:
    from fluvial.client import Client

keys = typer.Typer(help="The keys that seal apps' data.", no_args_is_help=True)
_COLUMNS = ("key", "state", "created_at", "destroyed_at", "is_wrapped")
_NAMED = 10  # live runs, for people

Key = Annotated[str, typer.Argument(metavar="KEY_ID", help="The key's id, from `keys ls`.")]


@keys.command("ls")
@reported
def list_keys(app: App, as_json: Json = False) -> None:
    """List an app's keys, oldest first."""
    with connect() as client:
        keyring = client.keys(app)
    if as_json:
        data_json(keyring)
        return
    table(keyring["keys"], _COLUMNS, as_json=False)
    if keyring["frozen_at"]:
        say(f"frozen since {keyring['frozen_at']}: nothing is sealed; `fluvial keys thaw {app}`")


@keys.command("rotate")
@reported
def rotate(app: App, as_json: Json = False) -> None:
    """Make a new key, which seals from now on; print its id. What older keys sealed still opens."""
    keyring = _change(lambda client: client.rotate_keys(app), as_json=as_json)
    if not as_json:
        data(str(keyring["current"]))


@keys.command("rewrap")
@reported
def rewrap(app: App, as_json: Json = False) -> None:
    """Have the KMS command wrap all of an app's keys anew."""
    _change(lambda client: client.rewrap_keys(app), as_json=as_json)
    if not as_json:
        say(f"the keys of {app} are wrapped")


@keys.command("freeze")
@reported
def freeze(app: App, as_json: Json = False) -> None:
    """Seal nothing new: starts and resumes are refused, what there is can be read."""
    keyring = _change(lambda client: client.freeze_keys(app), as_json=as_json)
    if not as_json:
        say(f"{app} is frozen since {keyring['frozen_at']}; `fluvial keys thaw {app}` ends that")


@keys.command("thaw")
@reported
def thaw(app: App, as_json: Json = False) -> None:
    """Undo `freeze`; runs that it had paused go on."""
    thawed = _change(lambda client: client.thaw_keys(app), as_json=as_json)
    if not as_json:
        say(f"{app} is thawed; {thawed['resumed_runs']} paused runs go on")


@keys.command("destroy")
@reported
def destroy(
    app: App,
    key: Key,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without, only say what would happen.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also while live runs need the key.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase a key: what it sealed is unreadable for ever."""
    with connect() as client:
        done = client.destroy_key(app, key, force=force, dry_run=not yes)
    if as_json:
        data_json(done)
    elif yes:
        say(f"key {key} of {app} is destroyed")
        say(f"{done['terminated_runs']} runs were terminated")
    else:
        _tell_consequences(app, key, done)


def _change(change: Callable[[Client], dict[str, Any]], *, as_json: bool) -> dict[str, Any]:
    with connect() as client:
        changed = change(client)
    if as_json:
        data_json(changed)
    return changed


def _tell_consequences(app: str, key: str, planned: dict[str, Any]) -> None:
    live, count = planned["live_runs"], planned["live_run_count"]
    more_than = "" if planned["is_complete"] else "at least "
    data(
        f"finished runs that become unreadable, at least in part: {more_than}"
        f"{planned['finished_run_count']}"
    )
    data(f"live runs that need it: {more_than}{count}")
    for run in live[:_NAMED]:
        data(f"{run['run_id']}  {'needs it' if run['is_certain'] else 'may need it'}")
    if count > _NAMED:
        say(f"… and {count - _NAMED} more")
    if planned["variables"]:
        data(f"variables of the app that need it: {', '.join(planned['variables'])}")
    if count or planned["variables"]:
        say("it is refused while there are any, but for --force: those that need it are terminated")
    say(f"nothing was done. To destroy it for ever: fluvial keys destroy {app} {key} --yes")
