"""Operations that begin runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

from starlette.responses import JSONResponse, Response

from fluvial.errors import InvalidRequestError
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Body, Call, Operation, Reply
from fluvial_gateway.control.parameters import (
    APP_IN_PATH,
    IDEMPOTENCY_KEY,
    NAMED_DEPLOYMENT,
    TAG_NAME,
    TAG_VALUE,
    WORKFLOW_IN_PATH,
)
from fluvial_gateway.control.schemas import Schema, array, integer, mapping, nullable, obj, text
from fluvial_gateway.control.times import MOMENT, SPAN, moment_ms, span_ms
from fluvial_gateway.runs import MAX_KEY_CHARACTERS, Arguments, Runs, Started
from fluvial_gateway.start_options import MAX_SINGLETON_CHARACTERS, ON_CONFLICT, StartOptions
from fluvial_queue.proposals import MAX_PRIORITY, MAX_TAGS

MAX_INPUT_BYTES: Final = 4 * 1024 * 1024  # larger inputs belong into a file that the run reads
STARTED: Final = obj(
    {"run_id": text(), "outcome": text(enum=["accepted", "duplicate", "existing"])}
)
ARGUMENTS: Final[Mapping[str, Schema]] = {"args": array(), "kwargs": {"type": "object"}}
OPTIONS: Final[Mapping[str, Schema]] = {
    "delay": SPAN,
    "at": MOMENT,
    "deadline": SPAN,
    "tags": mapping(TAG_VALUE, TAG_NAME, maxProperties=MAX_TAGS),
    "priority": integer(-MAX_PRIORITY, MAX_PRIORITY),
    "retention": SPAN,
    "singleton": text(minLength=1, maxLength=MAX_SINGLETON_CHARACTERS),
    "on_conflict": text("where a run with the singleton is alive", enum=list(ON_CONFLICT)),
}
_SPANS: Final = ("delay", "deadline", "retention")
_PLAIN: Final = ("tags", "priority", "singleton", "on_conflict")
_BODY: Final[Schema] = {
    "anyOf": [
        array(),
        obj(
            {
                **ARGUMENTS,
                "key": nullable(text(minLength=1, maxLength=MAX_KEY_CHARACTERS)),
                "deployment": NAMED_DEPLOYMENT,
                **OPTIONS,
            }
        ),
    ]
}


class StartingOperations:
    """Handlers that begin runs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/apps/{app}/workflows/{workflow}/runs",
                name="startRun",
                summary="Start a run",
                description=(
                    "The body is a JSON array of positional arguments, or an object with `args`, "
                    "`kwargs`, `key` and options. It is started on the app's production deployment "
                    "unless `deployment` names another one. Spans (`delay`, `deadline`, "
                    "`retention`) count from now on."
                ),
                handler=self.start,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(APP_IN_PATH, WORKFLOW_IN_PATH, IDEMPOTENCY_KEY),
                body=Body(_BODY, limit_bytes=MAX_INPUT_BYTES, optional=True),
                replies={
                    202: Reply("The run is accepted, was before, or is the singleton.", STARTED)
                },
                problems=(
                    "app_not_found",
                    "deployment_not_found",
                    "workflow_not_found",
                    "nothing_deployed",
                    "start_conflict",
                    "singleton_alive",
                ),
            )
        ]

    async def start(self, call: Call) -> Response:
        members = _members(call.body)
        started = await self._runs.start(
            call.path["app"],
            call.path["workflow"],
            arguments_of(members),
            key=_key(members, call.headers[IDEMPOTENCY_KEY.name]),
            options=options_of(members),
            deployment=members.get("deployment"),
        )
        return accepted(call, started)


def accepted(call: Call, started: Started) -> Response:
    """Return the answer to a start."""
    call.note(run_id=started.run_id, start=started.outcome)
    return JSONResponse({"run_id": started.run_id, "outcome": started.outcome}, 202)


def arguments_of(members: Mapping[str, Any]) -> Arguments:
    """Return the arguments that a body holds."""
    return Arguments(members.get("args") or [], members.get("kwargs") or {})


def options_of(members: Mapping[str, Any]) -> StartOptions:
    """Return the start options that a body holds.

    Raises:
        InvalidRequestError: a span or a moment is not understood; the message begins with its path.
    """
    if "delay" in members and "at" in members:
        raise InvalidRequestError("body.at: a run has a delay or a time of its start, not both")
    plain = {name: members[name] for name in _PLAIN if name in members}
    for name in _SPANS:
        if name in members:
            plain[f"{name}_ms"] = span_ms(members[name], f"body.{name}")
    options = StartOptions.of(plain)
    if "at" not in members:
        return options
    return replace(options, at_ms=moment_ms(members["at"], "body.at"))


def _members(body: Any) -> dict[str, Any]:
    return {"args": body} if isinstance(body, list) else cast("dict[str, Any]", body)


def _key(members: Mapping[str, Any], header_key: str | None) -> str:
    key = members.get("key") or header_key or ""
    if header_key and key != header_key:
        raise InvalidRequestError("the header Idempotency-Key and body.key name different keys")
    return str(key)
