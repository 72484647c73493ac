"""Operations that talk to live runs: send something to a hook, or ask and wait for the answer.

What a run answers is data: it is decrypted by the run's deployment, for those with `data:read`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import AskUnansweredError, FluvialError, HookNotFoundError, UnavailableError
from fluvial.hook_operations import CLOSED
from fluvial.invocations import Unreadable
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.hooks import RESUMED
from fluvial_gateway.control.operations import Body, Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import RESUME_ID, RUN_IN_PATH
from fluvial_gateway.control.schemas import integer, obj, text
from fluvial_gateway.control.starting import MAX_INPUT_BYTES
from fluvial_gateway.control.views import UNREADABLE
from fluvial_gateway.hook_answers import Answered, HookAnswers, Silent
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.revealing import Revealer, readable
from fluvial_gateway.runs import Runs
from fluvial_gateway.talking import Said, Talking
from fluvial_gateway.waits import LongWaits

_MAX_SECONDS: Final = 300
_GRACE_SECONDS: Final = 5.0  # what the waits themselves may take on top
_HOOK: Final = Parameter(
    "hook",
    "path",
    text(pattern="[A-Za-z_][A-Za-z0-9_-]{0,63}|[1-9][0-9]{0,9}"),
    "The hook's name, or the id of its operation.",
)
_WAIT: Final = Parameter(
    "wait",
    "query",
    integer(0, _MAX_SECONDS, default=10),
    "How many seconds the run gets to open a hook of that name.",
)
_TIMEOUT: Final = Parameter(
    "timeout",
    "query",
    integer(1, _MAX_SECONDS, default=30),
    "How many seconds the run gets to answer.",
)
_ANSWERED: Final = obj(
    {
        "run_id": text(),
        "resume_id": text(),
        "answer": {"description": "for those with data:read"},
        "withheld": text(),
        "unreadable": UNREADABLE,
    },
    required=["run_id", "resume_id"],
)
_PROBLEMS: Final = (
    "run_not_found",
    "hook_not_found",
    "run_closed",
    "payload_invalid",
    "keys_frozen",
)


class TalkingOperations:
    """Handlers that hand things to live runs."""

    def __init__(
        self,
        runs: Runs,
        talking: Talking,
        answers: HookAnswers,
        revealer: Revealer,
        waits: LongWaits,
    ) -> None:
        self._runs = runs
        self._talking = talking
        self._answers = answers
        self._revealer = revealer
        self._waits = waits

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/v1/runs/{id}/hooks/{hook}",
                name="sendToRun",
                summary="Hand a JSON value to a run's hook",
                handler=self.send,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(RUN_IN_PATH, _HOOK, RESUME_ID, _WAIT),
                body=Body({}, limit_bytes=MAX_INPUT_BYTES),
                replies={202: Reply("The value is accepted, or was before.", RESUMED)},
                problems=_PROBLEMS,
            ),
            Operation(
                method="POST",
                path="/v1/runs/{id}/hooks/{hook}/ask",
                name="askRun",
                summary="Hand a JSON value to a run's hook and wait for the answer",
                description=(
                    "A question is repeated by its resume id: it is asked once, and each time"
                    " answered alike. `answer` is there for those who have `data:read`."
                ),
                handler=self.ask,
                scopes=(Scope.RUNS_WRITE,),
                parameters=(RUN_IN_PATH, _HOOK, RESUME_ID, _WAIT, _TIMEOUT),
                body=Body({}, limit_bytes=MAX_INPUT_BYTES),
                replies={200: Reply("What the run answers.", _ANSWERED)},
                problems=(*_PROBLEMS, "ask_refused", "ask_unanswered", "ask_timeout"),
            ),
        ]

    async def send(self, call: Call) -> Response:
        said = await self._say(call, _resume_id(call), asks=False)
        return JSONResponse({"run_id": said.run_id, "outcome": said.outcome}, 202)

    async def ask(self, call: Call) -> Response:
        resume_id, hook = _resume_id(call), call.path["hook"]
        said = await self._say(call, resume_id, asks=True)
        found = await self._answer(said, resume_id, float(call.query["timeout"]))
        if isinstance(found, Silent):
            if found.is_over:
                raise AskUnansweredError(hook, f"the run has ended ({found.status})")
            raise ProblemError(
                "ask_timeout",
                f"{said.run_id} has not answered within {call.query['timeout']} seconds; it has"
                f" what it was asked, and asking again with the same {RESUME_ID.name} is the same"
                " question",
                extra={"run_id": said.run_id, "resume_id": resume_id},
            )
        shown = await self._shown(call, said.run_id, found)
        if not found.is_ok:
            raise _refusal(hook, found, shown)
        return JSONResponse({"run_id": said.run_id, "resume_id": resume_id, **shown})

    async def _say(self, call: Call, resume_id: str, *, asks: bool) -> Said:
        record = await self._runs.get(call.path["id"])
        call.note(app=record.app)
        hook, seconds = call.path["hook"], call.query["wait"]

        async def say(seconds: float) -> Said:
            return await self._talking.say_json(
                record, hook, call.body, resume_id, asks=asks, seconds=seconds
            )

        said = await say(0)
        if said.outcome == "not_open" and seconds:
            async with self._waiting(seconds):
                said = await say(seconds)
        if said.outcome == "not_open":
            raise HookNotFoundError(hook, said.run_id)
        call.note(run_id=said.run_id, delivery=said.outcome)
        return said

    async def _answer(self, said: Said, resume_id: str, seconds: float) -> Answered | Silent:
        async with self._waiting(seconds):
            return await self._answers.wait(
                said.run_id, said.token, resume_id, start=said.position, seconds=seconds
            )

    @asynccontextmanager
    async def _waiting(self, seconds: float) -> AsyncGenerator[None, None]:
        try:
            async with self._waits.admitted(seconds + _GRACE_SECONDS):
                yield
        except TimeoutError as error:
            raise UnavailableError(
                f"the wait was cut short: ask again, with the same {RESUME_ID.name}"
            ) from error

    async def _shown(self, call: Call, run_id: str, answered: Answered) -> dict[str, Any]:
        if not call.principal.may(Scope.DATA_READ):
            return {"withheld": f"needs the scope {Scope.DATA_READ.value}"}
        record = await self._runs.get(run_id)
        (text,) = await self._revealer.reveal(call.principal, record, [answered.event])
        if isinstance(text, Unreadable):
            return {"unreadable": {"code": text.code, "message": text.message}}
        return {"answer": None if text is None else readable(text)}


def _resume_id(call: Call) -> str:
    return call.headers[RESUME_ID.name] or secrets.token_hex(16)


def _refusal(hook: str, answered: Answered, shown: dict[str, Any]) -> FluvialError:
    if answered.why == CLOSED:
        return AskUnansweredError(hook, "the hook was closed before the workflow took this")
    reason = shown.get("answer", "for a reason that this token may not read")
    return ProblemError("ask_refused", f"the run's hook {hook!r} refused: {reason}", extra=shown)
