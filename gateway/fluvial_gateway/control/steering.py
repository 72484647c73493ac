"""Operations that steer one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.parameters import (
    NAMED_DEPLOYMENT,
    RUN_IN_PATH,
    TAG_NAME,
    TAG_VALUE,
)
from fluvial_gateway.control.schemas import Schema, integer, mapping, nullable, obj, text
from fluvial_gateway.runs import Runs
from fluvial_gateway.steering import MAX_REASON_CHARACTERS, Action, Steering, Wish
from fluvial_queue.proposals import MAX_TAGS

_MAX_OPERATION: Final = 2**31
REASON: Final = text("for the event log", maxLength=MAX_REASON_CHARACTERS)
TAG_CHANGE: Final = mapping(nullable(TAG_VALUE), TAG_NAME, minProperties=1, maxProperties=MAX_TAGS)
_ASKED: Final = obj({"run_id": text(), "deployment": text()})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One way of steering, as the API has it."""

    action: Action
    summary: str
    description: str = ""
    body: Schema | None = None  # None: it has no members
    needs_body: bool = False
    problems: tuple[str, ...] = ()


_MOVE_PROBLEMS: Final = (
    "run_not_paused",
    "deployment_not_found",
    "workflow_not_found",
    "nothing_deployed",
    "keys_frozen",
)
_KINDS: Final = (
    _Kind(
        action="cancel",
        summary="Cancel a run: its clean-up code is executed",
        body=obj({"reason": REASON}),
    ),
    _Kind(
        action="terminate",
        summary="End a run at once, without clean-up",
        body=obj({"reason": REASON}),
    ),
    _Kind(
        action="pause",
        summary="Start nothing more of a run until it is resumed",
        description="What is under way goes on, and its results are kept.",
        body=obj({"reason": REASON}),
    ),
    _Kind(
        action="resume",
        summary="Let a paused run go on, on another deployment if one is named",
        description=(
            "With `deployment` the run is moved, which only a paused run can be: it is"
            " replayed there, and pauses again if the code does not match its log."
        ),
        body=obj({"deployment": NAMED_DEPLOYMENT}),
        problems=_MOVE_PROBLEMS,
    ),
    _Kind(
        action="wake",
        summary="End a run's sleeps now, or the timer that is named",
        description=(
            "A run that waits for its time to begin does so now. Timeouts go on unless one is"
            " named by the id of its operation."
        ),
        body=obj({"timer": integer(1, _MAX_OPERATION)}),
    ),
    _Kind(
        action="retry",
        summary="Make the attempts of steps that wait for their time now",
    ),
    _Kind(
        action="tag",
        summary="Change a run's tags; null takes one away",
        body=obj({"tags": TAG_CHANGE}, required=["tags"]),
        needs_body=True,
    ),
)


class SteeringOperations:
    """Handlers that ask runs to do something."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._steering = Steering(runs)

    def operations(self) -> list[Operation]:
        return [*(self._operation(kind) for kind in _KINDS), self._deletion()]

    def _operation(self, kind: _Kind) -> Operation:
        async def handler(call: Call) -> Response:
            return await self._steer(call, kind.action, call.body)

        return Operation(
            method="POST",
            path=f"/v1/runs/{{id}}/{kind.action}",
            name=f"{kind.action}Run",
            summary=kind.summary,
            description=kind.description,
            handler=handler,
            scopes=(Scope.RUNS_WRITE,),
            parameters=(RUN_IN_PATH,),
            body=Body(kind.body or obj({}), optional=not kind.needs_body),
            replies={202: Reply("It is asked for, and happens soon.", _ASKED)},
            problems=("run_not_found", "run_closed", *kind.problems),
        )

    def _deletion(self) -> Operation:
        async def handler(call: Call) -> Response:
            await self._steer(call, "delete", {})
            return Response(status_code=204)

        return Operation(
            method="DELETE",
            path="/v1/runs/{id}",
            name="deleteRun",
            summary="Delete a run that has ended, with its log, at once and for good",
            handler=handler,
            scopes=(Scope.RUNS_WRITE,),
            parameters=(RUN_IN_PATH,),
            replies={204: Reply("It is gone.")},
            problems=("run_not_found", "run_open"),
        )

    async def _steer(self, call: Call, action: Action, body: Mapping[str, Any]) -> Response:
        record = await self._runs.get(call.path["id"])
        call.note(app=record.app)
        granted = await self._steering.carry_out(record, wish_of(action, body, call))
        if granted.run_id != record.run_id:
            call.note(run_id=granted.run_id)
        if granted.deployment != record.deployment:
            call.note(from_deployment=record.deployment, to_deployment=granted.deployment)
        answer = {"run_id": granted.run_id, "deployment": granted.deployment}
        return JSONResponse(answer, 202)


def wish_of(action: Action, body: Mapping[str, Any], call: Call, *, key: str = "") -> Wish:
    """Return the wish that a body holds."""
    return Wish(
        action=action,
        by=call.principal.author,
        reason=body.get("reason", ""),
        deployment=body.get("deployment"),
        timer=body.get("timer", 0),
        tags=body.get("tags", {}),
        key=key,
    )
