"""Operations that repeat runs, as a whole or in part: each starts another run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Handler, Operation, Reply
from fluvial_gateway.control.parameters import (
    IDEMPOTENCY_KEY,
    NAMED_DEPLOYMENT,
    RUN_IN_PATH,
)
from fluvial_gateway.control.schemas import Schema, integer, obj, text
from fluvial_gateway.control.starting import (
    ARGUMENTS,
    MAX_INPUT_BYTES,
    STARTED,
    accepted,
    arguments_of,
)
from fluvial_gateway.forks import FROM_START, ForkPlan, Forks
from fluvial_gateway.reruns import RerunPlan, Reruns
from fluvial_gateway.runs import Runs

_MAX_OPERATION: Final = 2**31
_FROM: Final[Schema] = {
    "anyOf": [
        integer(FROM_START, _MAX_OPERATION, description="a step's id; 0: from the beginning"),
        text("a step's name, where only one step has it", minLength=1, maxLength=512),
    ]
}
_FORK: Final = obj({"from": _FROM, "deployment": NAMED_DEPLOYMENT}, required=["from"])
_RETRY: Final = obj({"deployment": NAMED_DEPLOYMENT})
_RERUN: Final = obj({**ARGUMENTS, "deployment": NAMED_DEPLOYMENT})
_PROBLEMS: Final = (
    "run_not_found",
    "run_not_begun",
    "deployment_not_found",
    "workflow_not_found",
    "nothing_deployed",
    "start_conflict",
    "keys_frozen",
    "too_many_waits",
    "not_resealed",
)
_FORK_PROBLEMS: Final = ("open_children", "hook_conflict", "log_too_large")


class RepeatingOperations:
    """Handlers over forks and reruns."""

    def __init__(self, runs: Runs, forks: Forks, reruns: Reruns) -> None:
        self._runs = runs
        self._forks = forks
        self._reruns = reruns

    def operations(self) -> list[Operation]:
        return [
            self._operation(
                "fork",
                "Start a run that goes on from a step of this one",
                "Results that were recorded before the step's own are kept; the step, and what"
                " came after, happens again. The run itself is left alone, also where it lives.",
                self.fork,
                Body(_FORK),
                ("step_not_found", "step_ambiguous", *_FORK_PROBLEMS),
            ),
            self._operation(
                "retry-failed",
                "Start a run that goes on from the step of this one that failed last",
                "A fork from that step: see `forkRun`.",
                self.retry_failed,
                Body(_RETRY, optional=True),
                ("no_failed_step", *_FORK_PROBLEMS),
            ),
            self._operation(
                "rerun",
                "Start a run as this one was started",
                "With `args` or `kwargs` it gets those, else the same input. It has the tags,"
                " priority, retention and time to the deadline of this one, not its key.",
                self.rerun,
                Body(_RERUN, limit_bytes=MAX_INPUT_BYTES, optional=True),
                (),
            ),
        ]

    async def fork(self, call: Call) -> Response:
        return await self._fork(call, call.body["from"])

    async def retry_failed(self, call: Call) -> Response:
        return await self._fork(call, None)

    async def rerun(self, call: Call) -> Response:
        origin = await self._runs.get(call.path["id"])
        call.note(app=origin.app)
        plan = RerunPlan(
            arguments=arguments_of(call.body) if _has_arguments(call.body) else None,
            deployment=call.body.get("deployment"),
        )
        key = call.headers[IDEMPOTENCY_KEY.name] or ""
        return accepted(call, await self._reruns.rerun(origin, plan, key=key))

    async def _fork(self, call: Call, step: int | str | None) -> Response:
        origin = await self._runs.get(call.path["id"])
        call.note(app=origin.app)
        plan = ForkPlan(step=step, deployment=call.body.get("deployment"))
        by, key = call.principal.author, call.headers[IDEMPOTENCY_KEY.name] or ""
        return accepted(call, await self._forks.fork(origin, plan, by=by, key=key))

    def _operation(
        self,
        how: str,
        summary: str,
        description: str,
        handler: Handler,
        body: Body,
        problems: tuple[str, ...],
    ) -> Operation:
        return Operation(
            method="POST",
            path=f"/v1/runs/{{id}}/{how}",
            name={"retry-failed": "retryFailedStep"}.get(how, f"{how}Run"),
            summary=summary,
            description=description
            + " It runs on this one's deployment unless `deployment` names another.",
            handler=handler,
            scopes=(Scope.RUNS_WRITE,),
            parameters=(RUN_IN_PATH, IDEMPOTENCY_KEY),
            body=body,
            replies={202: Reply("The new run is accepted, or was before.", STARTED)},
            problems=(*_PROBLEMS, *problems),
        )


def _has_arguments(body: Mapping[str, Any]) -> bool:
    return not body.keys().isdisjoint(ARGUMENTS)
