"""Operations on rollouts: start, show, approve, abort."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.parameters import APP_IN_PATH, DEPLOYMENT_ID
from fluvial_gateway.control.schemas import array, integer, nullable, obj, text
from fluvial_gateway.control.times import SPAN, span_ms
from fluvial_gateway.control.views import TIME, time_text
from fluvial_gateway.rollout_counts import SideView
from fluvial_gateway.rollouts import MAX_STAGES, Rollouts
from fluvial_queue.records import AppRecord
from fluvial_queue.rollout_records import RolloutRecord

_MAX_REASON: Final = 500
_SIDE: Final = obj({"answers": {"type": "integer"}, "errors": {"type": "integer"}})
_ROLLOUT: Final = obj(
    {
        "app": text(),
        "state": text("active, completed, aborted; none: the app has had no rollout"),
        "deployment": nullable(text()),
        "production": nullable(text()),
        "percent": {"type": "integer", "description": "of clients on the new deployment now"},
        "stages": array({"type": "integer"}),
        "stage": {"type": "integer"},
        "every_seconds": nullable({"type": "number"}),
        "started_at": nullable(TIME),
        "since": nullable(TIME),
        "next_at": nullable(TIME),
        "by": nullable(text()),
        "reason": nullable(text("why it was aborted")),
        "new": _SIDE,
        "old": _SIDE,
    }
)
_STAGE: Final = integer(1, 99, description="percent of clients")


class RollingOperations:
    """Handlers over rollouts."""

    def __init__(self, catalogue: Catalogue, rollouts: Rollouts) -> None:
        self._catalogue = catalogue
        self._rollouts = rollouts

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/apps/{app}/rollout",
                name="getRollout",
                summary="Show the rollout under way, or the last one",
                description="The answers are those that this gateway has given of late.",
                handler=self.show,
                scopes=(Scope.DEPLOY, Scope.RUNS_READ),
                parameters=(APP_IN_PATH,),
                replies={200: Reply("The rollout.", _ROLLOUT)},
                problems=("app_not_found",),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/rollout",
                name="startRollout",
                summary="Move production to a deployment in stages; abort by itself on errors",
                handler=self.start,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(
                    obj(
                        {
                            "deployment": DEPLOYMENT_ID,
                            "stages": array(_STAGE, minItems=1, maxItems=MAX_STAGES),
                            "every": nullable(
                                {**SPAN, "description": "how long; null: until approved"}
                            ),
                        },
                        required=["deployment", "stages"],
                    )
                ),
                replies={200: Reply("The rollout.", _ROLLOUT)},
                problems=(
                    "app_not_found",
                    "deployment_not_found",
                    "deployment_retiring",
                    "rollout_active",
                    "rollout_impossible",
                    "alias_conflict",
                ),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/rollout/approve",
                name="approveRollout",
                summary="Begin the next stage now; behind the last one, move production",
                handler=self.approve,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(obj({}), optional=True),
                replies={200: Reply("The rollout.", _ROLLOUT)},
                problems=("app_not_found", "rollout_not_active", "alias_conflict"),
            ),
            Operation(
                method="POST",
                path="/v1/apps/{app}/rollout/abort",
                name="abortRollout",
                summary="Send all clients to the old deployment again",
                handler=self.abort,
                scopes=(Scope.DEPLOY,),
                parameters=(APP_IN_PATH,),
                body=Body(obj({"reason": text(maxLength=_MAX_REASON)}), optional=True),
                replies={200: Reply("The rollout.", _ROLLOUT)},
                problems=("app_not_found", "rollout_not_active", "alias_conflict"),
            ),
        ]

    async def show(self, call: Call) -> Response:
        return self._answer(await self._catalogue.app(call.path["app"]))

    async def start(self, call: Call) -> Response:
        every = call.body.get("every")
        call.note(deployment=call.body["deployment"], stages=call.body["stages"])
        app = await self._rollouts.start(
            call.path["app"],
            call.body["deployment"],
            call.body["stages"],
            every_ms=None if every is None else span_ms(every, "every"),
            by=call.principal.author,
        )
        return self._answer(app)

    async def approve(self, call: Call) -> Response:
        app = await self._rollouts.approve(call.path["app"], by=call.principal.author)
        call.note(production=app.production)
        return self._answer(app)

    async def abort(self, call: Call) -> Response:
        app = await self._rollouts.abort(
            call.path["app"], by=call.principal.author, reason=call.body.get("reason", "")
        )
        return self._answer(app)

    def _answer(self, app: AppRecord) -> Response:
        rollout = app.rollout
        view: dict[str, Any] = {"app": app.app, "production": app.production}
        if rollout is None:
            return JSONResponse({**view, "state": "none"})
        counts = self._rollouts.counts(app.app, rollout) if rollout.is_active else None
        if counts is not None:
            counts.turn()
            view |= {"new": _side(counts.new.view()), "old": _side(counts.old.view())}
        return JSONResponse(view | _rollout_view(rollout))


def _side(side: SideView) -> dict[str, int]:
    return {"answers": side.answers, "errors": side.errors}


def _rollout_view(rollout: RolloutRecord) -> dict[str, Any]:
    every_ms, due_ms = rollout.every_ms, rollout.due_ms
    return {
        "state": rollout.state,
        "deployment": rollout.deployment,
        "percent": rollout.percent,
        "stages": list(rollout.stages),
        "stage": rollout.stage,
        "every_seconds": None if every_ms is None else every_ms / 1000,
        "started_at": time_text(rollout.started_ms),
        "since": time_text(rollout.since_ms),
        "next_at": None if due_ms is None else time_text(due_ms),
        "by": rollout.by,
        "reason": rollout.reason or None,
    }
