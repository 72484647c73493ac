"""`fluvial runs streams` and `fluvial runs stream`: what runs have written while they ran."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import CommandError, ExitCode, reported
from fluvial_deploy.cli.options import Json, Run
from fluvial_deploy.cli.output import data, data_json, table

_COLUMNS = ("name", "length", "bytes", "closed")
_CONTENTS = ("value", "bytes", "repr", "unreadable", "since")


@reported
def list_streams(run: Run, as_json: Json = False) -> None:
    """List a run's streams."""
    with connect() as client:
        found = client.streams(run)
    table(found, _COLUMNS, as_json=as_json)


@reported
def show_stream(
    run: Run,
    name: Annotated[str, typer.Argument(help="Which stream.")] = "default",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay until the stream is closed.")
    ] = False,
    start: Annotated[
        int, typer.Option(help="From this position on; negative: so many before the end.")
    ] = 0,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print text and bytes as they are, nothing between.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what is in a stream, one chunk a line (needs the scope data:read)."""
    if raw and as_json:
        raise CommandError("--raw and --json exclude each other", ExitCode.USAGE)
    with connect() as client:
        read = client.follow_stream if follow else client.stream
        found = read(run, name, start=start)
        if raw:
            _write_raw(found)
        else:
            _print_entries(found, as_json=as_json)


def _print_entries(found: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for entry in found:
        if as_json:
            data_json(entry)
            continue
        content = {part: entry[part] for part in _CONTENTS if part in entry}
        shown = content.get("value", content)  # what is no JSON value says what it is
        data(f"{entry['position']:>5}  {json.dumps(shown, ensure_ascii=False)}")


def _write_raw(found: Iterable[dict[str, Any]]) -> None:
    for entry in found:
        if entry["type"] == "chunk":
            sys.stdout.buffer.write(_raw(entry))
            sys.stdout.buffer.flush()


def _raw(entry: dict[str, Any]) -> bytes:
    if "bytes" in entry:
        return base64.b64decode(entry["bytes"])
    if "unreadable" in entry:
        raise CommandError(
            f"chunk {entry['position']} cannot be shown: {entry['unreadable']}", ExitCode.FAILED
        )
    value = entry.get("value", entry.get("repr"))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace")
