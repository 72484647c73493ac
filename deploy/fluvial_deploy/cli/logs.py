"""`fluvial logs`: what an app has printed and logged."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import App, Json
from fluvial_deploy.cli.output import data, data_json, printable

_LINES: Final = 100
_ID_CHARACTERS: Final = 8  # of an id's end: enough to tell neighbours apart
_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_COLOURS: Final = {
    "debug": "\x1b[2m",
    "info": "",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}


@reported
def logs(
    app: App,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and print what is written from now on.")
    ] = False,
    lines: Annotated[
        int | None,
        typer.Option("-n", "--lines", min=0, max=1000, help="The last so many; default 100."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME|AGE", help='All from then on; such as "10m" ago.'),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME|AGE", help="Only what was written before.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="At least this one: debug, info, warning, error, critical."),
    ] = None,
    text: Annotated[str | None, typer.Option(help="Only with this text in the message.")] = None,
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    invocation: Annotated[str | None, typer.Option(help="Only of this invocation.")] = None,
    deployment: Annotated[str | None, typer.Option(help="Only of this deployment.")] = None,
    instance: Annotated[str | None, typer.Option(help="Only of this instance.")] = None,
    function: Annotated[
        str | None, typer.Option(help="Only of this workflow or step, or `http`.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only of http, turn or step; or instance: their lives.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what an app has printed and logged (needs the scope logs:read)."""
    if lines is None and since is None and until is None:
        lines = _LINES
    is_coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    with connect() as client:
        found = client.logs(
            app,
            tail=lines,
            since=since,
            until=until,
            level=level,
            text=text,
            run=run,
            invocation=invocation,
            deployment=deployment,
            instance=instance,
            function=function,
            kind=kind,
            follow=follow,
        )
        for record in found:
            if as_json:
                data_json(record)
            else:
                data(_line(record, is_coloured=is_coloured))


def _line(record: dict[str, Any], *, is_coloured: bool) -> str:
    level = str(record.get("level", ""))
    head = f"{_time(record)} {level.upper():<8} {_whose(record)}"
    message = printable(str(record.get("message", ""))).replace("\n", "\n    ")
    fields = " ".join(
        f"{name}={_value(value)}" for name, value in dict(record.get("fields") or {}).items()
    )
    end = f"  {printable(fields)}" if fields else ""
    if not is_coloured:
        return f"{head}  {message}{end}"
    return f"{_DIM}{head}{_RESET}  {_COLOURS.get(level, '')}{message}{_RESET}{_DIM}{end}{_RESET}"


def _time(record: dict[str, Any]) -> str:
    """Return a record's time in this machine's zone."""
    try:
        moment = datetime.fromisoformat(str(record.get("time")))
    except ValueError:
        return printable(str(record.get("time")))
    return moment.astimezone().isoformat(timespec="milliseconds", sep=" ")[:23]


def _whose(record: dict[str, Any]) -> str:
    """Return what wrote a record, in short: the function and the end of an id."""
    function = record.get("function") or record.get("kind") or record.get("stream") or ""
    name = next((record[key] for key in ("run", "invocation", "instance") if record.get(key)), "")
    return printable(f"{function} {str(name)[-_ID_CHARACTERS:]}").strip()


def _value(value: object) -> str:
    if isinstance(value, str) and value and " " not in value and "=" not in value:
        return value
    return json.dumps(value, ensure_ascii=False)
