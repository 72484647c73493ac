"""Operations that list runs, and that resume hooks."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import (
    APP,
    APP_IN_PATH,
    MAX_NAME_CHARACTERS,
    limit,
)
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.starting import MAX_INPUT_BYTES
from fluvial_gateway.control.views import RUN, TIME, run_view
from fluvial_gateway.hooks import MAX_TOKEN_CHARACTERS, Hooks
from fluvial_gateway.runs import MAX_KEY_CHARACTERS, Runs
from fluvial_queue.contract import RunQuery, RunStatus

_RESUME_ID: Final = "x-fluvial-resume-id"
_MAX_CURSOR_CHARACTERS: Final = 1024

_RESUMED: Final = obj({"run_id": text(), "outcome": text(enum=["accepted", "duplicate"])})
_PAGE: Final = obj({"runs": array(RUN), "cursor": nullable(text())})


class RunningOperations:
    """Handlers over runs and hooks."""

    def __init__(self, runs: Runs, hooks: Hooks) -> None:
        self._runs = runs
        self._hooks = hooks

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
                    Parameter(
                        "cursor",
                        "query",
                        text(minLength=1, maxLength=_MAX_CURSOR_CHARACTERS),
                        "From the page before.",
                    ),
                    limit(50, 500),
                ),
                replies={200: Reply("A page of runs.", _PAGE)},
            ),
            Operation(
                method="POST",
                path="/v1/hooks/{app}/{token:path}",
                name="resumeHook",
                summary="Deliver a JSON payload to an open hook",
                handler=self.resume_hook,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(
                    APP_IN_PATH,
                    Parameter(
                        "token",
                        "path",
                        text(minLength=1, maxLength=MAX_TOKEN_CHARACTERS),
                        "The hook's token.",
                        is_secret=True,
                    ),
                    Parameter(
                        _RESUME_ID,
                        "header",
                        text(minLength=1, maxLength=MAX_KEY_CHARACTERS),
                        "Delivers at most once: a repetition with the same id is a duplicate.",
                    ),
                ),
                body=Body({}, limit_bytes=MAX_INPUT_BYTES),
                replies={202: Reply("The payload is accepted, or was before.", _RESUMED)},
                problems=("hook_not_found", "run_closed", "payload_invalid"),
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

    async def resume_hook(self, call: Call) -> Response:
        resumed = await self._hooks.resume_json(
            call.path["app"],
            call.path["token"],
            call.body,
            call.headers[_RESUME_ID] or secrets.token_hex(16),
        )
        call.note(run_id=resumed.run_id, delivery=resumed.outcome)
        return JSONResponse({"run_id": resumed.run_id, "outcome": resumed.outcome}, 202)


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
