"""The operation that lists dead letters: runs that the platform has paused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import CURSOR, limit
from fluvial_gateway.control.run_filters import FILTERS, query_of
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.views import RUN, TIME, run_view, time_text
from fluvial_gateway.dead_letters import DeadLetter, DeadLetters
from fluvial_gateway.runs import Runs
from fluvial_queue.pausing import PAUSE_CODES

_CODES: Final = ", ".join(sorted(PAUSE_CODES))
_CODE: Final = Parameter(
    "code",
    "query",
    text(maxLength=200),
    f"Only those in one of these troubles: {_CODES} (comma-separated).",
)
_LETTER: Final = obj(
    {**RUN["properties"], "code": text(f"the trouble: {_CODES}"), "paused_at": TIME}
)
_PAGE: Final = obj({"dead_letters": array(_LETTER), "cursor": nullable(text())})


class DeadLetteringOperations:
    """Handlers over dead letters."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._letters = DeadLetters(runs)

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/dead-letters",
                name="listDeadLetters",
                summary="List runs that the platform has paused, newest first",
                description=(
                    "They are in trouble that waiting does not cure, and go on once they are"
                    " resumed. Runs that somebody has paused are not among them. Pages are as"
                    " those of runs, and may be shorter still."
                ),
                handler=self.list_letters,
                scopes=(Scope.RUNS_READ,),
                parameters=(
                    *(each for each in FILTERS if each.name != "status"),
                    _CODE,
                    CURSOR,
                    limit(50, 500),
                ),
                replies={200: Reply("A page of dead letters.", _PAGE)},
            )
        ]

    async def list_letters(self, call: Call) -> Response:
        query = query_of(call.query, await self._runs.now_ms())
        letters, cursor = await self._letters.page(
            replace(query, limit=call.query["limit"], cursor=call.query["cursor"]),
            _codes(call.query["code"]),
        )
        return JSONResponse({"dead_letters": [_view(one) for one in letters], "cursor": cursor})


def _view(letter: DeadLetter) -> dict[str, Any]:
    return {**run_view(letter.run), "code": letter.code, "paused_at": time_text(letter.since_ms)}


def _codes(named: str | None) -> frozenset[str] | None:
    if named is None:
        return None
    codes = frozenset(named.split(","))
    for code in sorted(codes - PAUSE_CODES):
        raise InvalidRequestError(f"query parameter code: {code!r} is none; known: {_CODES}")
    return codes
