"""`fluvial apps`, `fluvial deployments` and `rollback`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from fluvial.errors import InvalidRequestError
from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Deployment, Json
from fluvial_deploy.cli.output import data, data_json, say, show, table

apps = typer.Typer(help="Apps.", no_args_is_help=True)
deployments = typer.Typer(help="Deployments: versions of apps.", no_args_is_help=True)
_DEFAULT: Final = "default"
_COLUMNS: Final = ("deployment", "app", "aliases", "state", "created_at", "interface")


@apps.command("ls")
@reported
def list_apps(as_json: Json = False) -> None:
    """List apps."""
    with connect() as client:
        table(client.apps(), ("app", "url", "production", "created_at"), as_json=as_json)


@apps.command("show")
@reported
def show_app(app: App, as_json: Json = False) -> None:
    """Show one app."""
    with connect() as client:
        show(client.app(app), as_json=as_json)


@deployments.command("ls")
@reported
def list_deployments(
    app: Annotated[str | None, typer.Option(help="Only of this app.")] = None,
    as_json: Json = False,
) -> None:
    """List deployments, newest first."""
    with connect() as client:
        rows = client.deployments(app)
    table(rows, _COLUMNS, as_json=as_json)


@deployments.command("show")
@reported
def show_deployment(deployment: Deployment, as_json: Json = False) -> None:
    """Show one deployment."""
    with connect() as client:
        show(client.deployment(deployment), as_json=as_json)


@deployments.command("rm")
@reported
def remove_deployment(
    deployment: Deployment,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also while ended runs of it are kept; never while any live."),
    ] = False,
    when_unused: Annotated[
        bool, typer.Option("--when-unused", help="Delete it after the last run that needs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a deployment that no run needs and no alias stands on."""
    with connect() as client:
        removal = client.delete_deployment(deployment, force=force, when_unused=when_unused)
    if as_json:
        data_json(removal)
    elif removal["state"] == "deleted":
        say(f"{deployment} is deleted")
    else:
        say(
            f"{deployment} starts nothing any more, and is deleted after its last run: "
            f"{removal['live_runs']} are live, {removal['ended_runs']} have ended and are kept"
        )


@deployments.command("keep")
@reported
def keep_deployment(deployment: Deployment, as_json: Json = False) -> None:
    """Keep a deployment that was to be deleted after its last run."""
    with connect() as client:
        kept = client.keep_deployment(deployment)
    data_json(kept) if as_json else say(f"{deployment} stays")


@apps.command("set")
@reported
def set_app(
    app: App,
    keep: Annotated[
        str | None,
        typer.Option(metavar="N|default", help="How many of its newest deployments are kept."),
    ] = None,
    keep_for: Annotated[
        str | None,
        typer.Option(metavar="SPAN|default", help="How long each is kept in any case: 30d."),
    ] = None,
    pin_for: Annotated[
        str | None,
        typer.Option(
            metavar="SPAN|off|default",
            help="How long clients may go on with a deployment that production has left: 12h.",
        ),
    ] = None,
    pin_cookie: Annotated[
        bool | None,
        typer.Option("--pin-cookie/--no-pin-cookie", help="Give clients a cookie that does it."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Change settings of an app; show the app."""
    settings: dict[str, Any] = {}
    if keep is not None:
        settings["keep_deployments"] = None if keep == _DEFAULT else _number("--keep", keep)
    if keep_for is not None:
        settings["keep_deployments_for"] = None if keep_for == _DEFAULT else keep_for
    if pin_for is not None:
        spans = {_DEFAULT: None, "off": 0}
        settings["pin_for"] = spans.get(pin_for, pin_for)
    if pin_cookie is not None:
        settings["pin_cookie"] = pin_cookie
    with connect() as client:
        show(client.set_app(app, **settings), as_json=as_json)


@reported
def rollback(
    app: App,
    deployment: Annotated[
        str | None, typer.Argument(metavar="[DEPLOYMENT]", help="Where to; default: the previous.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Go back to an app's previous production; print the deployment."""
    with connect() as client:
        moved = client.rollback(app, deployment)
    data_json(moved) if as_json else data(str(moved.get("production")))


def _number(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidRequestError(f"{option} must be a number or {_DEFAULT!r}, got {text!r}")
    return int(text)
