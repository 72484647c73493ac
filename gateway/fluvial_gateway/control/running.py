"""The operation that lists runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import (
    APP,
    CURSOR,
    MAX_NAME_CHARACTERS,
    limit,
)
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.views import RUN, TIME, run_view
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunQuery, RunStatus

_PAGE: Final = obj({"runs": array(RUN), "cursor": nullable(text())})


class RunningOperations:
    """Handlers over all runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/runs",
                name="listRuns",
                summary="List runs, newest first",
                handler=self.list_runs,
                scopes=(Scope.RUNS_READ,),
                parameters=(
                    APP,
                    Parameter(
                        "workflow",
                        "query",
                        text(minLength=1, maxLength=MAX_NAME_CHARACTERS),
                        "Only runs of this workflow.",
                    ),
                    Parameter(
                        "status",
                        "query",
                        text(maxLength=200),
                        f"Only runs in one of these: {', '.join(RunStatus)} (comma-separated).",
                    ),
                    Parameter("since", "query", TIME, "Only runs created at or after this time."),
                    CURSOR,
                    limit(50, 500),
                ),
                replies={200: Reply("A page of runs.", _PAGE)},
            ),
        ]

    async def list_runs(self, call: Call) -> Response:
        page = await self._runs.page(
            RunQuery(
                app=call.query["app"],
                workflow=call.query["workflow"],
                statuses=_statuses(call.query["status"]),
                since_ms=_milliseconds(call.query["since"]),
                limit=call.query["limit"],
                cursor=call.query["cursor"],
            )
        )
        return JSONResponse({"runs": [run_view(run) for run in page.runs], "cursor": page.cursor})


def _statuses(names: str | None) -> frozenset[RunStatus] | None:
    if names is None:
        return None
    try:
        return frozenset(RunStatus(name) for name in names.split(","))
    except ValueError as error:
        known = ", ".join(RunStatus)
        raise InvalidRequestError(f"query parameter status: {error}; known: {known}") from error


def _milliseconds(moment: str | None) -> int | None:
    if moment is None:
        return None
    try:
        parsed = datetime.fromisoformat(moment)
        aware = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
        return max(0, int(aware.timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(
            f"query parameter since: {moment!r} is no time such as 2026-01-31T12:00:00Z"
        ) from error
