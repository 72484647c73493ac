"""Operations on crons: list, show, preview, pause, resume, trigger."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.crons import CRON_NAME
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import (
    Body,
    Call,
    Handler,
    Method,
    Operation,
    Parameter,
    Reply,
)
from fluvial_gateway.control.parameters import APP, APP_IN_PATH, IDEMPOTENCY_KEY
from fluvial_gateway.control.schemas import Schema, array, integer, nullable, obj, text
from fluvial_gateway.control.views import TIME, time_text
from fluvial_gateway.crons.service import MAX_TICKS, Crons, CronState
from fluvial_gateway.crons.states import CronKey
from fluvial_queue.cron_records import CronEvent

_CRON_IN_PATH: Final = Parameter(
    "cron", "path", text(pattern=CRON_NAME.pattern), "The cron's name."
)
_COUNT: Final = Parameter("limit", "query", integer(1, MAX_TICKS, default=5), "How many at most.")
_EVENT: Final = obj(
    {
        "tick": TIME,
        "outcome": text("started, skipped, missed, refused or triggered"),
        "at": TIME,
        "count": {"type": "integer", "description": "of ticks in a row with this end"},
        "run_id": nullable(text()),
        "reason": nullable(text()),
    }
)
_CRON: Final = obj(
    {
        "app": text(),
        "cron": text(),
        "workflow": text(),
        "deployment": text(),
        "schedule": text(),
        "timezone": text(),
        "overlap": text(),
        "catch_up": text(),
        "catch_up_limit": {"type": "integer"},
        "catch_up_window_seconds": {"type": "number"},
        "jitter_seconds": {"type": "number"},
        "args": array(),
        "kwargs": {"type": "object"},
        "paused": {"type": "boolean"},
        "active_since": TIME,
        "next_tick": nullable(TIME),
        "last_run": nullable(text()),
        "last_tick": nullable(TIME),
        "last_outcome": nullable(text()),
        "last_reason": nullable(text()),
        "counts": {"type": "object", "description": "ticks by outcome"},
        "recent": array(_EVENT),
    }
)
_EMPTY: Final = Body(obj({}), optional=True)
_PROBLEMS: Final = ("app_not_found", "cron_not_found")


class SchedulingOperations:
    """Handlers over crons."""

    def __init__(self, crons: Crons) -> None:
        self._crons = crons

    def operations(self) -> list[Operation]:
        reading = (Scope.RUNS_READ,)
        return [
            Operation(
                method="GET",
                path="/v1/crons",
                name="listCrons",
                summary="List the crons of production deployments",
                handler=self.list_crons,
                scopes=reading,
                parameters=(APP,),
                replies={200: Reply("Crons, by app and name.", obj({"crons": array(_CRON)}))},
                problems=("app_not_found",),
            ),
            self._on_one("GET", "", "getCron", "Show a cron", self.get_cron, reading, _CRON),
            Operation(
                method="GET",
                path="/v1/apps/{app}/crons/{cron}/ticks",
                name="listTicks",
                summary="Tell when a cron's next ticks are due",
                handler=self.ticks,
                scopes=reading,
                parameters=(APP_IN_PATH, _CRON_IN_PATH, _COUNT),
                replies={200: Reply("The times, in order.", obj({"ticks": array(TIME)}))},
                problems=_PROBLEMS,
            ),
            self._on_one(
                "POST",
                "/pause",
                "pauseCron",
                "Let no tick of a cron start a run until it is resumed",
                self.pause,
                (Scope.RUNS_WRITE,),
                _CRON,
            ),
            self._on_one(
                "POST",
                "/resume",
                "resumeCron",
                "Let a cron go on with its next tick; those of the pause are dropped",
                self.resume,
                (Scope.RUNS_WRITE,),
                _CRON,
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/crons/{cron}/trigger",
                name="triggerCron",
                summary="Start a run of a cron now, outside its schedule",
                description="Neither a pause nor a run that still goes on stands in its way.",
                handler=self.trigger,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(APP_IN_PATH, _CRON_IN_PATH, IDEMPOTENCY_KEY),
                body=_EMPTY,
                replies={
                    202: Reply(
                        "The run is accepted, or was before.",
                        obj({"run_id": text(), "outcome": text()}),
                    )
                },
                problems=_PROBLEMS,
            ),
        ]

    async def list_crons(self, call: Call) -> Response:
        found = await self._crons.active(call.query["app"])
        return JSONResponse({"crons": [_view(state) for state in found]})

    async def get_cron(self, call: Call) -> Response:
        return JSONResponse(_view(await self._crons.get(_key(call))))

    async def ticks(self, call: Call) -> Response:
        found = await self._crons.ticks(_key(call), call.query["limit"])
        return JSONResponse({"ticks": [time_text(tick) for tick in found]})

    async def pause(self, call: Call) -> Response:
        state = await self._crons.pause(_key(call))
        return JSONResponse(_view(state))

    async def resume(self, call: Call) -> Response:
        state = await self._crons.resume(_key(call))
        return JSONResponse(_view(state))

    async def trigger(self, call: Call) -> Response:
        key = call.headers[IDEMPOTENCY_KEY.name] or ""
        started = await self._crons.trigger(_key(call), idempotency_key=key)
        call.note(run_id=started.run_id)
        return JSONResponse({"run_id": started.run_id, "outcome": started.outcome}, 202)

    def _on_one(
        self,
        method: Method,
        path: str,
        name: str,
        summary: str,
        handler: Handler,
        scopes: tuple[Scope, ...],
        schema: Schema,
    ) -> Operation:
        return Operation(
            method=method,
            path=f"/v1/apps/{{app}}/crons/{{cron}}{path}",
            name=name,
            summary=summary,
            handler=handler,
            scopes=scopes,
            parameters=(APP_IN_PATH, _CRON_IN_PATH),
            body=_EMPTY if method == "POST" else None,
            replies={200: Reply("The cron.", schema)},
            problems=_PROBLEMS,
        )


def _key(call: Call) -> CronKey:
    return CronKey(call.path["app"], call.path["cron"])


def _view(state: CronState) -> dict[str, Any]:
    spec, record = state.spec, state.record
    last = record.recent[0] if record.recent else None
    return {
        "app": state.app,
        "cron": spec.name,
        "workflow": spec.workflow,
        "deployment": state.deployment,
        "schedule": spec.schedule,
        "timezone": spec.timezone,
        "overlap": spec.overlap,
        "catch_up": spec.catch_up,
        "catch_up_limit": spec.catch_up_limit,
        "catch_up_window_seconds": spec.catch_up_window_seconds,
        "jitter_seconds": spec.jitter_seconds,
        "args": spec.args,
        "kwargs": spec.kwargs,
        "paused": record.is_paused,
        "active_since": time_text(state.since_ms),
        "next_tick": None if state.next_tick_ms is None else time_text(state.next_tick_ms),
        "last_run": record.last_run or None,
        "last_tick": None if last is None else time_text(last.tick_ms),
        "last_outcome": None if last is None else last.outcome,
        "last_reason": None if last is None else last.reason or None,
        "counts": dict(record.counts),
        "recent": [_event_view(event) for event in record.recent],
    }


def _event_view(event: CronEvent) -> dict[str, Any]:
    return {
        "tick": time_text(event.tick_ms),
        "outcome": event.outcome,
        "at": time_text(event.at_ms),
        "count": event.count,
        "run_id": event.run_id or None,
        "reason": event.reason or None,
    }
