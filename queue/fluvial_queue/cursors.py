"""How runs are listed: their order, which of them match, and what a cursor says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import RunQuery, RunStatus

Position = tuple[int, str]
"""Where a run stands among all: when it was created (ms), then its id. Lists begin with the
greatest; a cursor names the last run that was looked at."""


def format_cursor(position: Position) -> str:
    """Return the cursor that stands behind a position."""
    return f"{position[0]}-{position[1]}"


def parse_cursor(cursor: str) -> Position:
    """Return the position that a cursor stands behind."""
    created_ms, _, run_id = cursor.partition("-")
    if not (created_ms.isascii() and created_ms.isdigit() and run_id):
        raise InvalidRequestError(f"{cursor!r} is not a cursor of a page of runs")
    return int(created_ms), run_id


def matches(
    query: RunQuery,
    run_id: str,
    app: str,
    workflow: str,
    status: str,
    tags: Mapping[str, str],
    meta: Mapping[str, Any],
) -> bool:
    """Return whether a run is asked for; `status` is empty for one that has expired."""
    return (
        bool(status)
        and query.app in (None, app)
        and query.workflow in (None, workflow)
        and (query.statuses is None or RunStatus(status) in query.statuses)
        and query.parent in (None, meta.get("parent"))
        and query.root in (None, meta.get("root", run_id))
        and all(tags.get(name) == value for name, value in query.tags.items())
    )
