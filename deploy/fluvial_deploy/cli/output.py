"""Data on stdout, talk on stderr; colours only on a terminal, never with NO_COLOR."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO, cast

_RED: Final = "31"
_BOLD: Final = "1"
_DIM: Final = "2"


def data(text: str) -> None:
    """Write one line of data."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def data_json(value: Any) -> None:
    """Write one value as JSON on one line."""
    data(json.dumps(value, ensure_ascii=False))


def say(text: str) -> None:
    """Write talk: one line, or a few."""
    _write_talk(printable(text))


def say_dim(text: str) -> None:
    """Write talk that matters less."""
    _write_talk(_styled(printable(text), _DIM, sys.stderr))


def printable(text: str) -> str:
    """Return `text` as a terminal may see it: what comes from an app must not command it."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def say_error(message: str, *, code: str, as_json: bool) -> None:
    """Tell an error: one message, or one JSON object for programs."""
    if as_json:
        say(json.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False))
        return
    _write_talk(f"{_styled('error:', _RED, sys.stderr)} {printable(message)}")


def show(fields: Mapping[str, Any], *, as_json: bool) -> None:
    """Show one thing."""
    if as_json:
        data_json(fields)
        return
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        label = _styled(f"{name:<{width}}", _BOLD, sys.stdout)
        first, *further = _lines(value)
        data(f"{label}  {first}")
        for line in further:
            data(f"{'':<{width}}  {line}")


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Show things: aligned on a terminal, separated by tabs for programs, or as JSON."""
    if as_json:
        data_json(list(rows))
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    if not sys.stdout.isatty():
        for line in cells:
            data("\t".join(line))
        return
    heads = [column.replace("_", " ").upper() for column in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    data(_styled(_aligned(heads, widths), _BOLD, sys.stdout))
    for line in cells:
        data(_aligned(line, widths))


def can_ask() -> bool:
    """Return whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Ask a person; everything but a yes is a no."""
    sys.stderr.write(f"{printable(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def is_interactive() -> bool:
    """Return whether a person watches stderr."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{w}}" for cell, w in zip(cells, widths, strict=True)).rstrip()


def _lines(value: object) -> list[str]:
    """Return a value as lines: text keeps its own."""
    if isinstance(value, str) and "\n" in value:
        return [line.replace("\t", " ") for line in printable(value).split("\n")]
    return [_cell(value)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return printable(value).replace("\n", " ").replace("\t", " ")
    if isinstance(value, list):
        items = cast("list[object]", value)
        if all(isinstance(item, str) for item in items):
            return ", ".join(map(_cell, items)) or "-"
    return json.dumps(value, ensure_ascii=False)


def _write_talk(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _styled(text: str, style: str, stream: TextIO) -> str:
    if not stream.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{style}m{text}\x1b[0m"
