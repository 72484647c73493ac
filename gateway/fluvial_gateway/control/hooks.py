"""Operations over open hooks: which there are, and resuming one by its token."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.hook_tokens import without_secret
from fluvial.invocations import Revealed, Unreadable
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import (
    APP,
    APP_IN_PATH,
    CURSOR,
    DATA,
    RESUME_ID,
    RUN_IN_PATH,
    limit,
)
from fluvial_gateway.control.schemas import array, integer, nullable, obj, text
from fluvial_gateway.control.starting import MAX_INPUT_BYTES
from fluvial_gateway.control.views import TIME, UNREADABLE, plain, time_text
from fluvial_gateway.hooks import MAX_TOKEN_CHARACTERS, Hooks, Opened
from fluvial_gateway.revealing import Revealer, readable
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunQuery, RunRecord, RunStatus
from fluvial_queue.proposals import MAX_DELAY_MS

_LIVE: Final = frozenset(status for status in RunStatus if not status.is_terminal)
_MAX_ID: Final = 2**31
_OF_ONE_RUN: Final = 20  # hooks that a list of many runs shows of each

RESUMED: Final = obj({"run_id": text(), "outcome": text(enum=["accepted", "duplicate"])})
_HOOK: Final = obj(
    {
        "id": {"type": "integer", "description": "the operation's, in its run"},
        "token": {"type": "string", "description": "a made one in full only with data=true"},
        "name": nullable(text()),
        "webhook": {"type": "boolean", "description": "whether requests to its URL resume it"},
        "opened_at": TIME,
        "closes_at": nullable(TIME),
        "takes": nullable({"type": "object", "description": "JSON Schema of its payloads"}),
        "metadata": {"description": "only with data=true, where the hook has some"},
        "unreadable": UNREADABLE,
    }
)
_OF_RUN: Final = {"run_id": text(), "workflow": text(), "hooks": array(_HOOK)}


class HookOperations:
    """Handlers over hooks."""

    def __init__(self, runs: Runs, hooks: Hooks, revealer: Revealer) -> None:
        self._runs = runs
        self._hooks = hooks
        self._revealer = revealer

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/hooks",
                name="listHooks",
                summary="List runs that have open hooks, newest first",
                description=(
                    f"A page looks at `limit` runs, shows those that have hooks open, and of each"
                    f" the first {_OF_ONE_RUN}."
                ),
                handler=self.list_hooks,
                scopes=(Scope.RUNS_READ,),
                parameters=(APP, CURSOR, limit(20, 100)),
                replies={
                    200: Reply(
                        "Some runs and their hooks.",
                        obj({"runs": array(obj(_OF_RUN)), "cursor": nullable(text())}),
                    )
                },
            ),
            Operation(
                method="GET",
                path="/v1/runs/{id}/hooks",
                name="listRunHooks",
                summary="Show a run's open hooks",
                handler=self.list_of_run,
                scopes=(Scope.RUNS_READ,),
                parameters=(
                    RUN_IN_PATH,
                    DATA,
                    Parameter(
                        "start", "query", integer(0, _MAX_ID, default=0), "The first hook's id."
                    ),
                    limit(100, 500),
                ),
                replies={
                    200: Reply(
                        "Its hooks, by their ids.",
                        obj({**_OF_RUN, "next": nullable({"type": "integer"})}),
                    )
                },
                problems=("run_not_found",),
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
                    RESUME_ID,
                ),
                body=Body({}, limit_bytes=MAX_INPUT_BYTES),
                replies={202: Reply("The payload is accepted, or was before.", RESUMED)},
                problems=("hook_not_found", "run_closed", "payload_invalid", "keys_frozen"),
            ),
        ]

    async def list_hooks(self, call: Call) -> Response:
        page = await self._runs.page(
            RunQuery(
                app=call.query["app"],
                statuses=_LIVE,
                limit=call.query["limit"],
                cursor=call.query["cursor"],
            )
        )
        found: list[dict[str, Any]] = []
        for record in page.runs:
            opened = await self._hooks.opened(record.run_id, limit=_OF_ONE_RUN)
            if opened:
                views = [hook_view(hook, shows_secrets=False) for hook in opened]
                found.append(_of_run(record, views))
        return JSONResponse({"runs": found, "cursor": page.cursor})

    async def list_of_run(self, call: Call) -> Response:
        if call.query["data"]:
            call.principal.require(Scope.DATA_READ)
        record = await self._runs.get(call.path["id"])
        most: int = call.query["limit"]
        opened = await self._hooks.opened(record.run_id, start=call.query["start"], limit=most + 1)
        shown = opened[:most]
        views = [hook_view(hook, shows_secrets=call.query["data"]) for hook in shown]
        if call.query["data"]:
            events = [hook.event for hook in shown]
            texts = await self._revealer.reveal(
                call.principal, record, [event.encode() for event in events]
            )
            for view, metadata in zip(views, texts, strict=True):
                view |= _metadata(metadata)
        following = opened[most].id if len(opened) > most else None
        return JSONResponse({**_of_run(record, views), "next": following})

    async def resume_hook(self, call: Call) -> Response:
        resumed = await self._hooks.resume_json(
            call.path["app"],
            call.path["token"],
            call.body,
            call.headers[RESUME_ID.name] or secrets.token_hex(16),
        )
        call.note(run_id=resumed.run_id, delivery=resumed.outcome)
        return JSONResponse({"run_id": resumed.run_id, "outcome": resumed.outcome}, 202)


def _of_run(record: RunRecord, hooks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"run_id": record.run_id, "workflow": record.workflow, "hooks": list(hooks)}


def hook_view(hook: Opened, *, shows_secrets: bool) -> dict[str, Any]:
    """Return how an open hook looks in JSON."""
    event, meta = hook.event, plain(hook.event.meta)
    return {
        "id": hook.id,
        "token": hook.token if shows_secrets else without_secret(hook.token),
        "name": meta.get("name"),
        "webhook": "webhook" in meta,
        "opened_at": time_text(event.at_ms),
        "closes_at": _closing_time(event.at_ms, meta.get("timeout_ms")),
        "takes": meta.get("schema"),
    }


def _closing_time(opened_ms: int, timeout_ms: object) -> str | None:
    # It stands in the log as an instance wrote it.
    if not isinstance(timeout_ms, int) or not 0 < timeout_ms <= MAX_DELAY_MS:
        return None
    return time_text(opened_ms + timeout_ms)


def _metadata(revealed: Revealed) -> dict[str, Any]:
    if isinstance(revealed, Unreadable):
        return {"unreadable": asdict(revealed)}
    return {} if revealed is None else {"metadata": readable(revealed)}
