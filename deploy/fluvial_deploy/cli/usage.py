"""`fluvial usage`: what apps have used, what it costs, and what running all the time would cost."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from fluvial_deploy.cli.connection import connect
from fluvial_deploy.cli.exits import reported
from fluvial_deploy.cli.options import Json
from fluvial_deploy.cli.output import data_json, say_dim, table

_NAMES: Final = {
    "app": ("app",),
    "function": ("app", "kind", "function"),
    "day": ("day",),
    "hour": ("hour",),
}
_AMOUNTS: Final = ("invocations", "cpu_seconds", "gb_seconds", "cost")
_COMPARED: Final = ("always_on", "saved")


@reported
def usage(
    app: Annotated[str | None, typer.Argument(metavar="[APP]", help="Only this app.")] = None,
    since: Annotated[
        str, typer.Option(metavar="TIME|AGE", help="From then on, or from so long ago.")
    ] = "30d",
    until: Annotated[
        str | None, typer.Option(metavar="TIME|AGE", help="Until then, or until so long ago.")
    ] = None,
    by: Annotated[str, typer.Option(help="A line for each app, function, day or hour.")] = "app",
    as_json: Json = False,
) -> None:
    """Show active CPU, memory, invocations and their cost, beside what always on would cost."""
    with connect() as client:
        found = client.usage(app, since=since, until=until, by=by)
    if as_json:
        data_json(found)
        return
    names = _NAMES[by]
    total = {**dict.fromkeys(names, ""), **found["total"], names[0]: "total"}
    compared = _COMPARED if by == "app" else ()
    rows = [_row(row, names, compared) for row in (*found["rows"], total)]
    table(rows, (*names, *_AMOUNTS, *compared), as_json=False)
    prices = found["prices"]
    say_dim(
        f"from {found['since']} to {found['until']}; at {prices['cpu_hour']} a CPU hour,"
        f" {prices['gb_hour']} a GB hour, {prices['million_invocations']} a million invocations;"
        " always on: one CPU and the app's memory all the time"
    )


def _row(row: dict[str, Any], names: tuple[str, ...], compared: tuple[str, ...]) -> dict[str, str]:
    always_on, saved = row.get("always_on"), row.get("saved")
    cells = {
        **{name: str(row[name]) for name in names},
        "invocations": str(row["invocations"]),
        "cpu_seconds": f"{row['active_cpu_seconds']:.3f}",
        "gb_seconds": f"{row['memory_gb_seconds']:.3f}",
        "cost": _money(row["cost"]["total"]),
    }
    if compared:
        cells["always_on"] = "-" if always_on is None else _money(always_on["total"])
        cells["saved"] = "-" if saved is None else f"{saved * 100:.1f}%"
    return cells


def _money(amount: float) -> str:
    """Return an amount with as many digits as small ones need."""
    return f"{amount:.2f}" if amount >= 100 else f"{amount:.6f}"
