"""`fluvial env …`, `fluvial secret …` and `fluvial redeploy`: what an app finds in its environment.

A secret comes from a prompt or from standard input: arguments can be seen by other users of the
machine and stay in the shell's history.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json, tags_of
from fluvial_deploy.cli.output import data, data_json, say, table

env = typer.Typer(help="Variables of apps.", no_args_is_help=True)
secret = typer.Typer(help="Secrets of apps: variables to be careful with.", no_args_is_help=True)
_COLUMNS = ("name", "set_at", "set_by", "in_production")
_File = Annotated[Path, typer.Argument(metavar="FILE", help="In the .env format.")]
_Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of variables.")]


@env.command("set")
@reported
def set_variables(
    app: App,
    variables: Annotated[list[str], typer.Argument(metavar="NAME=VALUE…")],
    as_json: Json = False,
) -> None:
    """Set variables, for deploys from now on."""
    _set(app, tags_of(variables, "variable"), is_secret=False, as_json=as_json)


@env.command("import")
@reported
def import_file(
    app: App,
    file: _File,
    as_secrets: Annotated[
        bool, typer.Option("--secret", help="Set all of them as secrets.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set all variables of a file, for deploys from now on."""
    from fluvial_deploy.cli.env_files import read_env_file

    _set(app, read_env_file(file), is_secret=as_secrets, as_json=as_json)


@env.command("ls")
@reported
def list_variables(app: App, as_json: Json = False) -> None:
    """List variables and secrets by name; values cannot be read again."""
    _list(app, only_secrets=False, as_json=as_json)


@env.command("rm")
@reported
def remove_variables(app: App, names: _Names) -> None:
    """Remove variables, for deploys from now on."""
    _remove(app, names)


@secret.command("set")
@reported
def set_secret(
    app: App,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    as_json: Json = False,
) -> None:
    """Set a secret, for deploys from now on; asks for the value, or reads standard input."""
    _set(app, {name: _secret_value(name)}, is_secret=True, as_json=as_json)


@secret.command("ls")
@reported
def list_secrets(app: App, as_json: Json = False) -> None:
    """List secrets by name; values cannot be read again."""
    _list(app, only_secrets=True, as_json=as_json)


@secret.command("rm")
@reported
def remove_secrets(app: App, names: _Names) -> None:
    """Remove secrets, for deploys from now on."""
    _remove(app, names)


@reported
def redeploy(
    app: App,
    no_promote: Annotated[
        bool, typer.Option("--no-promote", help="Leave production where it is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Deploy what is production again, with the app's environment of now; print its URL."""
    with connect() as client:
        deployed = client.redeploy(app, promote=not no_promote)
    if not deployed.created:
        say("nothing has changed: production has this environment already")
    if as_json:
        result = {"url": deployed.url, "created": deployed.created}
        data_json({**result, "deployment": deployed.deployment})
    else:
        data(deployed.url)


def _set(app: str, variables: Mapping[str, str], *, is_secret: bool, as_json: bool) -> None:
    from fluvial.variables import check_variables

    check_variables(variables)
    with connect() as client:
        environment = client.set_environment(app, variables, secret=is_secret)
    if as_json:
        data_json(environment)
        return
    kind = "secret" if is_secret else "variable"
    what = f"{kind} {next(iter(variables))}" if len(variables) == 1 else f"{len(variables)} {kind}s"
    say(f"set {what} of {app}")
    _say_next(app)


def _remove(app: str, names: list[str]) -> None:
    with connect() as client:
        for name in names:
            client.remove_variable(app, name)
    _say_next(app)


def _say_next(app: str) -> None:
    say(f"deployments keep what they have: `fluvial redeploy {app}` makes one that has it")


def _list(app: str, *, only_secrets: bool, as_json: bool) -> None:
    with connect() as client:
        environment = client.environment(app)
    found: list[dict[str, Any]] = environment["variables"]
    rows = [row for row in found if row["secret"] or not only_secrets]
    columns = _COLUMNS if only_secrets else (_COLUMNS[0], "secret", *_COLUMNS[1:])
    table(rows, columns, as_json=as_json)
    waiting = [row["name"] for row in rows if not row["in_production"]]
    if waiting and not as_json:
        say(f"not in production yet: {', '.join(waiting)}; `fluvial redeploy {app}`")


def _secret_value(name: str) -> str:
    if not sys.stdin.isatty():
        # One newline at the end is the doing of `echo` and of editors.
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    from getpass import getpass

    return getpass(f"value of {name}: ")
