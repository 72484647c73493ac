"""The operation that asks the same of many runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, cast, get_args

from starlette.responses import Response

from fluvial.errors import InvalidRequestError
from fluvial.manifest import APP_NAME
from fluvial_gateway.auth import Scope
from fluvial_gateway.bulk import MAX_RUNS, Bulk, BulkResult, BulkTally, BulkWish
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.parameters import (
    IDEMPOTENCY_KEY,
    MAX_CURSOR_CHARACTERS,
    MAX_NAME_CHARACTERS,
    NAMED_DEPLOYMENT,
    TAG_NAME,
    TAG_VALUE,
)
from fluvial_gateway.control.schemas import Schema, array, integer, mapping, obj, text
from fluvial_gateway.control.steering import REASON, TAG_CHANGE, wish_of
from fluvial_gateway.control.streaming import LINES, line_response
from fluvial_gateway.control.times import MOMENT_OR_AGE, moment_or_age_ms
from fluvial_gateway.runs import Runs
from fluvial_gateway.steering import Action
from fluvial_gateway.waits import LongWaits
from fluvial_queue.contract import RunQuery, RunStatus
from fluvial_queue.proposals import MAX_TAGS

_SECONDS: Final = 4 * 3600.0  # the most runs, at some ten a second on a slow store
_STATUS: Final = text(enum=[status.value for status in RunStatus])
_FILTER: Final[Schema] = {
    **obj(
        {
            "app": text(pattern=APP_NAME.pattern),
            "workflow": text(minLength=1, maxLength=MAX_NAME_CHARACTERS),
            "status": array(_STATUS, minItems=1, maxItems=len(RunStatus)),
            "tags": mapping(TAG_VALUE, TAG_NAME, maxProperties=MAX_TAGS),
            "since": MOMENT_OR_AGE,
            "until": MOMENT_OR_AGE,
            "parent": text("the run whose children they are", minLength=1, maxLength=64),
        }
    ),
    "minProperties": 1,
    "description": "runs that have all of this; `since` and `until` are about when they were made",
}
_BODY: Final = obj(
    {
        "action": text(enum=list(get_args(Action))),
        "filter": _FILTER,
        "dry_run": {"type": "boolean"},
        "limit": integer(1, MAX_RUNS),
        "cursor": text(minLength=1, maxLength=MAX_CURSOR_CHARACTERS),
        "reason": REASON,
        "deployment": NAMED_DEPLOYMENT,
        "tags": TAG_CHANGE,
    },
    required=["action", "filter"],
)
_ONLY_WITH: Final[Mapping[str, tuple[Action, ...]]] = {
    "reason": ("cancel", "terminate", "pause"),
    "deployment": ("resume",),
    "tags": ("tag",),
}


class BulkOperations:
    """Handlers over many runs."""

    def __init__(self, runs: Runs, waits: LongWaits) -> None:
        self._runs = runs
        self._bulk = Bulk(runs)
        self._waits = waits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/runs/bulk",
                name="bulkRuns",
                summary="Ask the same of all runs that a filter finds",
                description=(
                    "With `dry_run` nothing is asked, and the answer says what would be. Runs are"
                    " taken newest first; without `status` in the filter, those for which the"
                    ' action makes sense. The answer is one JSON object a line: {"run": …} for each'
                    ' run, {"progress": …} with a `cursor` now and then, and at the end'
                    ' {"summary": …} or {"problem": …}. Closing the connection stops it; `cursor`'
                    " goes on from there, and the same Idempotency-Key asks nothing of a run twice."
                ),
                handler=self.bulk,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(IDEMPOTENCY_KEY,),
                body=Body(_BODY),
                replies={200: Reply("What became of each run.", {"type": "string"}, LINES)},
                problems=("too_many_waits",),
            )
        ]

    async def bulk(self, call: Call) -> Response:
        body = cast("dict[str, Any]", call.body)
        _check_members(body)
        action: Action = body["action"]
        key = call.headers[IDEMPOTENCY_KEY.name]
        asked = BulkWish(
            wish=wish_of(action, body, call, key=f"bulk {key}" if key else ""),
            query=query_of(body["filter"], await self._runs.now_ms(), cursor=body.get("cursor")),
            limit=body.get("limit", MAX_RUNS),
            dry_run=body.get("dry_run", False),
        )
        _note(call, asked)
        self._waits.check()
        return line_response(call, self._lines(call, asked))

    async def _lines(self, call: Call, asked: BulkWish) -> AsyncGenerator[dict[str, Any], None]:
        tally = BulkTally()
        try:
            async with (
                self._waits.admitted(_SECONDS),
                aclosing(self._bulk.carry_out(asked, tally)) as results,
            ):
                async for result in results:
                    yield _view(result, asked)
            rest = {"dry_run": asked.dry_run, "is_complete": tally.cursor is None}
            yield {"summary": {**_counts(tally), **rest}}
        finally:
            call.note(matched=tally.matched, done=tally.done, skipped=tally.skipped.total())


def query_of(body: Mapping[str, Any], now_ms: int, *, cursor: str | None = None) -> RunQuery:
    """Return the query that a filter describes.

    Raises:
        InvalidRequestError: a moment is not understood; the message begins with its path.
    """
    moments = {
        name: moment_or_age_ms(body[name], now_ms, f"body.filter.{name}")
        for name in ("since", "until")
        if name in body
    }
    return RunQuery(
        app=body.get("app"),
        workflow=body.get("workflow"),
        statuses=frozenset(map(RunStatus, body["status"])) if "status" in body else None,
        tags=body.get("tags", {}),
        parent=body.get("parent"),
        cursor=cursor,
        since_ms=moments.get("since"),
        until_ms=moments.get("until"),
    )


def _check_members(body: Mapping[str, Any]) -> None:
    action = body["action"]
    for name, actions in _ONLY_WITH.items():
        if name in body and action not in actions:
            raise InvalidRequestError(
                f"body.{name}: is for {' and '.join(actions)}, not for {action}"
            )
    if action == "tag" and "tags" not in body:
        raise InvalidRequestError("body: the member 'tags' is missing")


def _note(call: Call, asked: BulkWish) -> None:
    """Have the audit log say of which runs it was asked; tags may hold data, so they are named."""
    query = asked.query
    about = {
        "app": query.app,
        "workflow": query.workflow,
        "statuses": sorted(query.statuses) if query.statuses else None,
        "tags": sorted(query.tags) or None,
        "parent": query.parent,
        "since_ms": query.since_ms,
        "until_ms": query.until_ms,
    }
    given = {name: value for name, value in about.items() if value is not None}
    call.note(action=asked.wish.action, dry_run=asked.dry_run, **given)


def _view(result: BulkResult | BulkTally, asked: BulkWish) -> dict[str, Any]:
    if isinstance(result, BulkTally):
        return {"progress": _counts(result)}
    run, outcome = result.run, "would" if asked.dry_run else "done"
    return {
        "run": {
            "run_id": run.run_id,
            "app": run.app,
            "workflow": run.workflow,
            "status": run.status.value,
            "outcome": "skipped" if result.skipped else outcome,
            "reason": result.skipped or None,
            "detail": result.detail or None,
        }
    }


def _counts(tally: BulkTally) -> dict[str, Any]:
    return {
        "matched": tally.matched,
        "done": tally.done,
        "skipped": dict(tally.skipped),
        "cursor": tally.cursor,
    }
