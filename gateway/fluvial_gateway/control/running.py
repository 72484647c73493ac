"""The operation that lists runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Call, Operation, Reply
from fluvial_gateway.control.parameters import CURSOR, limit
from fluvial_gateway.control.run_filters import FILTERS, query_of
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.views import RUN, run_view
from fluvial_gateway.runs import Runs

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
                description=(
                    "A page looks at a bounded number of runs: it may be short, even empty, and"
                    " still have a `cursor`. Cursors are stable while runs are added."
                ),
                handler=self.list_runs,
                scopes=(Scope.RUNS_READ,),
                parameters=(*FILTERS, CURSOR, limit(50, 500)),
                replies={200: Reply("A page of runs.", _PAGE)},
            ),
        ]

    async def list_runs(self, call: Call) -> Response:
        query = query_of(call.query, await self._runs.now_ms())
        page = await self._runs.page(
            replace(query, limit=call.query["limit"], cursor=call.query["cursor"])
        )
        return JSONResponse({"runs": [run_view(run) for run in page.runs], "cursor": page.cursor})
