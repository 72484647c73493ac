"""The operation that says why a run waits: in a sentence for people, in parts for programs."""

from __future__ import annotations

from typing import Any, Final, get_args

from starlette.responses import JSONResponse, Response

from fluvial.hook_tokens import is_secret
from fluvial_gateway.auth import Scope
from fluvial_gateway.awaited import Awaited, Kind
from fluvial_gateway.awaited_text import commands, sentence
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import RUN_IN_PATH
from fluvial_gateway.control.schemas import array, nullable, obj, text
from fluvial_gateway.control.views import TIME, time_text
from fluvial_gateway.explaining import Explaining, Explanation
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunRecord

_MAX_SHOWN: Final = 100  # of the things that a run waits for
_TOKENS: Final = Parameter(
    "data",
    "query",
    {"type": "boolean", "default": False},
    "Show the secret tokens of hooks too; needs the scope `data:read`.",
)
_AWAITED: Final = obj(
    {
        "kind": text(enum=list(get_args(Kind))),
        "operation": {"type": "integer", "description": "of the run; 0: the run itself"},
        "since": nullable(TIME),
        "until": nullable({**TIME, "description": "when it comes by itself, or at the latest"}),
        "name": nullable(text("the step's, the hook's, or the child's workflow")),
        "attempt": nullable({"type": "integer"}),
        "state": nullable(text("of a turn or a step: what keeps it, if it is not executing")),
        "instance": nullable(text("that executes it")),
        "problem": nullable(text("why it is paused, was refused, or failed before")),
        "code": nullable(text("of a pause that nobody asked for, such as `diverged`")),
        "by": nullable(text("who has paused it")),
        "webhook": {"type": "boolean", "description": "whether only requests to its URL resume it"},
        "token": nullable(text("of the hook; null where it is secret and `data` is not set")),
        "run_id": nullable(text("the child, or the run that goes on in its place")),
        "commands": array(text("a command that would move the run on")),
    }
)
_WAITING: Final = obj(
    {
        "run_id": text(),
        "status": text(),
        "sentence": text("what it waits for, since when, and what would move it"),
        "waits_for": array(_AWAITED),
        "count": {"type": "integer", "description": f"of these; {_MAX_SHOWN} are shown at most"},
        "chain": array(obj({"run_id": text(), "workflow": text(), "status": text()})),
        "leaf": nullable(_AWAITED),
        "cancel_requested_at": nullable(TIME),
        "owner": nullable(text("the gateway that owns its partition, where this one does not")),
        "now": TIME,
    }
)


class ExplainingOperations:
    """Handlers over explanations."""

    def __init__(self, runs: Runs, explaining: Explaining) -> None:
        self._runs = runs
        self._explaining = explaining

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/runs/{id}/waiting",
                name="explainRun",
                summary="Say what a run waits for, since when, and what would move it",
                description=(
                    "`waits_for` begins with what is to be expected first. Where that is a child"
                    " run, `chain` has the runs down to the one at which the chain of children"
                    " ends, and `leaf` what that one waits for. It is read off the run's log and"
                    " what the gateway knows, and may be a moment old."
                ),
                handler=self.explain,
                scopes=(Scope.RUNS_READ,),
                parameters=(RUN_IN_PATH, _TOKENS),
                replies={200: Reply("Why it waits.", _WAITING)},
                problems=("run_not_found",),
            )
        ]

    async def explain(self, call: Call) -> Response:
        shows_tokens = bool(call.query["data"])
        if shows_tokens:
            call.principal.require(Scope.DATA_READ)
        explanation = await self._explaining.explain(await self._runs.get(call.path["id"]))
        return JSONResponse(_view(explanation, shows_tokens=shows_tokens))


def _view(explanation: Explanation, *, shows_tokens: bool) -> dict[str, Any]:
    run, leaf, cancelled = explanation.run, explanation.leaf, explanation.cancelled
    return {
        "run_id": run.run_id,
        "status": run.status.value,
        "sentence": sentence(explanation, shows_tokens=shows_tokens),
        "waits_for": [
            _awaited_view(awaited, run, shows_tokens=shows_tokens)
            for awaited in explanation.awaited[:_MAX_SHOWN]
        ],
        "count": len(explanation.awaited),
        "chain": [
            {"run_id": run.run_id, "workflow": run.workflow, "status": run.status.value}
            for run in _children(explanation)
        ],
        "leaf": None
        if leaf is explanation
        else _awaited_view(leaf.first, leaf.run, shows_tokens=shows_tokens),
        "cancel_requested_at": None if cancelled is None else time_text(cancelled.at_ms),
        "owner": explanation.owner,
        "now": time_text(explanation.now_ms),
    }


def _children(explanation: Explanation) -> list[RunRecord]:
    child = explanation.child
    return [] if child is None else [child.run, *_children(child)]


def _awaited_view(awaited: Awaited, run: RunRecord, *, shows_tokens: bool) -> dict[str, Any]:
    is_hidden = not shows_tokens and is_secret(awaited.token)
    return {
        "kind": awaited.kind,
        "operation": awaited.operation,
        "since": None if awaited.since_ms is None else time_text(awaited.since_ms),
        "until": None if awaited.until_ms is None else time_text(awaited.until_ms),
        "name": awaited.name or None,
        "attempt": awaited.attempt or None,
        "state": awaited.state or None,
        "instance": awaited.instance or None,
        "problem": awaited.problem or None,
        "code": awaited.code or None,
        "by": awaited.by or None,
        "webhook": awaited.is_webhook,
        "token": None if is_hidden else awaited.token or None,
        "run_id": awaited.run_id or None,
        "commands": commands(awaited, run, shows_tokens=shows_tokens),
    }
