"""The operation that checks runs against a deployment before anything moves to it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, get_args

from starlette.responses import Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.parameters import DEPLOYMENT_IN_PATH, MAX_NAME_CHARACTERS
from fluvial_gateway.control.schemas import integer, obj, text
from fluvial_gateway.control.streaming import LINES, line_response
from fluvial_gateway.replay_checks import (
    MAX_RUNS,
    Finding,
    ReplayChecks,
    RunCheck,
    Summary,
    Wanted,
)
from fluvial_gateway.waits import LongWaits
from fluvial_queue.records import DeploymentRecord

_LIVE: Final = "live"
_SECONDS: Final = 4 * 3600.0  # a report over everything; checks are a few a second at worst
_WANTED: Final = obj(
    {
        "scope": {
            "anyOf": [
                text("all runs of the app that have not ended", enum=[_LIVE]),
                obj({"last": integer(1, MAX_RUNS)}, required=["last"]),
            ]
        },
        "workflow": text("only of this one", minLength=1, maxLength=MAX_NAME_CHARACTERS),
        "limit": integer(1, MAX_RUNS),
        "inputs": {
            "type": "boolean",
            "description": "compare arguments and results too; differences are warnings",
        },
    }
)


class CheckingOperations:
    """Handlers over replay checks."""

    def __init__(self, catalogue: Catalogue, checks: ReplayChecks, waits: LongWaits) -> None:
        self._catalogue = catalogue
        self._checks = checks
        self._waits = waits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/deployments/{id}/replay-check",
                name="replayCheck",
                summary="Replay the logs of runs on a deployment, and say which would diverge",
                description=(
                    "Nothing is proposed and no run is disturbed; the deployment need not be"
                    ' promoted. The answer is one JSON object a line: {"run": …} for each run as it'
                    ' is done, then {"report": …} or {"problem": …}. Closing the connection stops'
                    " it."
                ),
                handler=self.check,
                scopes=(Scope.DEPLOY,),
                parameters=(DEPLOYMENT_IN_PATH,),
                body=Body(_WANTED, optional=True),
                replies={200: Reply("What was found.", {"type": "string"}, LINES)},
                problems=("deployment_not_found", "too_many_waits", "import_failed"),
            )
        ]

    async def check(self, call: Call) -> Response:
        deployment = await self._catalogue.deployment(call.path["id"])
        self._waits.check()
        return line_response(call, self._checking(call, deployment, _wanted(call.body)))

    async def _checking(
        self, call: Call, deployment: DeploymentRecord, wanted: Wanted
    ) -> AsyncGenerator[dict[str, Any], None]:
        counts: dict[Finding, int] = dict.fromkeys(get_args(Finding), 0)
        try:
            async with (
                self._waits.admitted(_SECONDS),
                aclosing(self._checks.report(deployment, wanted)) as report,
            ):
                async for found in report:
                    if isinstance(found, RunCheck):
                        counts[found.finding] += 1
                    yield _view(found)
        finally:
            call.note(app=deployment.spec.app, **counts)


def _wanted(body: dict[str, Any]) -> Wanted:
    scope = body.get("scope", _LIVE)
    return Wanted(
        last=None if scope == _LIVE else scope["last"],
        workflow=body.get("workflow"),
        limit=body.get("limit", MAX_RUNS),
        compares_values=body.get("inputs", False),
    )


def _view(found: RunCheck | Summary) -> dict[str, Any]:
    if isinstance(found, Summary):
        report = {
            "checked": sum(found.counts.values()),
            **found.counts,
            "with_warnings": found.warned,
            "is_complete": found.is_complete,
        }
        return {"report": report}
    run = found.run
    return {
        "run": {
            "run_id": run.run_id,
            "workflow": run.workflow,
            "deployment": run.deployment,
            "status": run.status.value,
            "finding": found.finding,
            "detail": found.detail,
            "warnings": list(found.warnings),
        }
    }
