"""Operations that show what a run did: its record, its events (as a page or followed), its end.

Who only has `runs:read` sees names, times, sizes and states. The data itself is decrypted by the
run's deployment, for principals with `data:read`, when they ask for it with `data=true`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from fluvial.errors import FluvialError
from fluvial.events import Event, EventType, decode_event
from fluvial.invocations import Revealed, Unreadable
from fluvial_gateway.auth import Principal, Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import DATA, RUN_IN_PATH, limit
from fluvial_gateway.control.schemas import array, integer, obj, text
from fluvial_gateway.control.streaming import GeneratedResponse, server_sent
from fluvial_gateway.control.views import EVENT, RUN, UNREADABLE_PARTS, event_view, run_view
from fluvial_gateway.revealing import MAX_BYTES, Revealer, readable
from fluvial_gateway.runs import Runs
from fluvial_gateway.waits import LongWaits
from fluvial_queue.contract import RunRecord

_LOG = logging.getLogger(__name__)

MAX_WAIT_SECONDS: Final = 300
KEEP_ALIVE_SECONDS: Final = 15.0
_KEEP_ALIVE: Final = b": still here\n\n"
_FOLLOW_SECONDS: Final = 3600.0  # then the client connects again, with Last-Event-ID
_FOLLOW_EVENTS: Final = 200  # read at once; each batch is one reveal
_MAX_POSITION: Final = 2**31
_EVENT_STREAM: Final = "text/event-stream"


class ReadingRunsOperations:
    """Handlers over runs, with the data for those who may read it."""

    def __init__(
        self,
        runs: Runs,
        revealer: Revealer,
        waits: LongWaits,
        *,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._runs = runs
        self._revealer = revealer
        self._waits = waits
        self._keep_alive_seconds = keep_alive_seconds

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/runs/{id}",
                name="getRun",
                summary="Show a run",
                handler=self.get_run,
                scopes=(Scope.RUNS_READ,),
                parameters=(RUN_IN_PATH, DATA),
                replies={200: Reply("The run.", RUN)},
                problems=("run_not_found",),
            ),
            Operation(
                method="GET",
                path="/v1/runs/{id}/events",
                name="listEvents",
                summary="Show or follow a run's event log",
                description=(
                    f"With `Accept: {_EVENT_STREAM}` the events are sent as they happen until the "
                    "run ends; the id of each is its position, and Last-Event-ID resumes."
                ),
                handler=self.events,
                scopes=(Scope.RUNS_READ,),
                parameters=(
                    RUN_IN_PATH,
                    DATA,
                    Parameter(
                        "start",
                        "query",
                        integer(0, _MAX_POSITION, default=0),
                        "The first event's position.",
                    ),
                    limit(100, 1000),
                    Parameter(
                        "last-event-id",
                        "header",
                        integer(0, _MAX_POSITION),
                        "The last position that a follower has seen.",
                    ),
                ),
                replies={
                    200: Reply(
                        "Events in the order of the log.",
                        obj(
                            {
                                "events": array(EVENT),
                                "next": {"type": "integer"},
                                "status": text(),
                            }
                        ),
                    ),
                    204: Reply("To a follower: the run has ended and there are no more events."),
                },
                problems=("run_not_found",),
            ),
            Operation(
                method="GET",
                path="/v1/runs/{id}/result",
                name="getResult",
                summary="Return a run's result, waiting for it if asked to",
                description=(
                    "`result` or `error` is there once the run has ended, for those who have "
                    "`data:read`; without, `withheld` names the scope that is missing. "
                    "Where the key is gone, `unreadable` stands in their place."
                ),
                handler=self.result,
                scopes=(Scope.RUNS_READ,),
                parameters=(
                    RUN_IN_PATH,
                    Parameter(
                        "wait",
                        "query",
                        integer(0, MAX_WAIT_SECONDS, default=0),
                        "How many seconds to wait for the end.",
                    ),
                ),
                replies={
                    200: Reply(
                        "The status, and the result once there is one.",
                        obj(
                            {
                                "run_id": text(),
                                "status": text(),
                                "result": {},
                                "error": {},
                                "withheld": text(),
                                "unreadable": UNREADABLE_PARTS,
                            },
                            required=["run_id", "status"],
                        ),
                    )
                },
                problems=("run_not_found", "not_revealed"),
            ),
        ]

    async def get_run(self, call: Call) -> Response:
        record = await self._runs.get(call.path["id"])
        view = run_view(record)
        if call.query["data"]:
            call.principal.require(Scope.DATA_READ)
            shown = await self._input(call.principal, record)
            outcome = await self._outcome(call.principal, record)
            unreadable = {**shown.pop("unreadable", {}), **outcome.pop("unreadable", {})}
            view |= shown | outcome | ({"unreadable": unreadable} if unreadable else {})
        return JSONResponse(view)

    async def events(self, call: Call) -> Response:
        if call.query["data"]:
            call.principal.require(Scope.DATA_READ)
        record = await self._runs.get(call.path["id"])
        start = call.query["start"]
        if _EVENT_STREAM in call.request.headers.get("accept", ""):
            seen = call.headers["last-event-id"]
            return self._follow_response(call, record, start if seen is None else seen + 1)
        encoded = await self._runs.events(record.run_id, start=start, limit=call.query["limit"])
        views = await self._views(call, record, start, encoded)
        return JSONResponse(
            {"events": views, "next": start + len(views), "status": record.status.value}
        )

    async def result(self, call: Call) -> Response:
        record = await self._runs.get(call.path["id"])
        seconds = float(call.query["wait"])
        if seconds and not record.status.is_terminal:
            try:
                async with self._waits.admitted(seconds):
                    record = await self._runs.wait_for_end(record, seconds)
            except TimeoutError:
                record = await self._runs.get(record.run_id)
        answer: dict[str, Any] = {"run_id": record.run_id, "status": record.status.value}
        if call.principal.may(Scope.DATA_READ):
            answer.update(await self._outcome(call.principal, record))
        elif record.status.is_terminal:
            answer["withheld"] = f"needs the scope {Scope.DATA_READ.value}"
        return JSONResponse(answer)

    def _follow_response(self, call: Call, record: RunRecord, start: int) -> Response:
        # 204 is what tells an EventSource not to connect again.
        if record.status.is_terminal and record.events <= start:
            return Response(status_code=204)
        self._waits.check()
        return GeneratedResponse(self._follow(call, record, start), media_type=_EVENT_STREAM)

    async def _follow(
        self, call: Call, record: RunRecord, position: int
    ) -> AsyncGenerator[bytes, None]:
        try:
            async with self._waits.admitted(_FOLLOW_SECONDS):
                while True:
                    encoded = await self._runs.events(
                        record.run_id, start=position, limit=_FOLLOW_EVENTS
                    )
                    for view in await self._views(call, record, position, encoded):
                        yield server_sent(view["position"], view)
                        position += 1
                    if encoded:
                        continue
                    if record.status.is_terminal:
                        return
                    yield _KEEP_ALIVE
                    record = await self._runs.wait_for_events(
                        record.run_id, position, self._keep_alive_seconds
                    )
        except TimeoutError:
            return  # the client connects again, maybe to another gateway
        except FluvialError as error:
            # The stream has begun, so its end is all that can be said; the client connects again.
            _LOG.warning("a follower was dropped", extra={"code": error.code})

    async def _views(
        self, call: Call, record: RunRecord, start: int, encoded: Sequence[bytes]
    ) -> list[dict[str, Any]]:
        texts: Sequence[Revealed] = ()
        if call.query["data"]:
            encoded = _affordable(encoded)
            texts = await self._revealer.reveal(call.principal, record, encoded)
        views = [
            event_view(start + offset, decode_event(event), shows_secrets=call.query["data"])
            for offset, event in enumerate(encoded)
        ]
        for view, revealed in zip(views, texts, strict=False):
            if isinstance(revealed, Unreadable):
                view["unreadable"] = asdict(revealed)
            elif revealed is not None:
                view["data"] = readable(revealed)
        return views

    async def _input(self, principal: Principal, record: RunRecord) -> dict[str, Any]:
        if record.events:
            encoded = await self._runs.events(record.run_id, start=0, limit=1)
        else:
            # Accepted, and not yet taken up: the input waits on the record.
            meta = {"workflow": record.workflow, "deployment": record.deployment}
            first = Event(EventType.RUN_STARTED, record.created_ms, 0, record.input, meta)
            encoded = [first.encode()]
        return _shown("input", await self._revealer.reveal(principal, record, encoded))

    async def _outcome(self, principal: Principal, record: RunRecord) -> dict[str, Any]:
        """Return what the end of a run has to say; nothing while it goes on."""
        ended = await self._runs.last_event(record)
        if ended is None:
            return {}
        event, encoded = ended
        if event.type is EventType.RUN_COMPLETED:
            texts = await self._revealer.reveal(principal, record, [encoded])
            return _shown("result", texts)
        if event.type is EventType.RUN_FAILED and event.payload:
            texts = await self._revealer.reveal(principal, record, [encoded])
            return _shown("error", texts)
        return {"error": str(event.meta.get("reason") or record.status.value)}


def _affordable(encoded: Sequence[bytes]) -> Sequence[bytes]:
    """Return as many of the first events as can be revealed at once, at least one."""
    size = 0
    for index, event in enumerate(encoded):
        size += len(event)
        if size > MAX_BYTES and index:
            return encoded[:index]
    return encoded


def _shown(name: str, texts: Sequence[Revealed]) -> dict[str, Any]:
    """Return the member that shows a value, or the one that says why it cannot be shown."""
    revealed = texts[0] if texts else None
    if isinstance(revealed, Unreadable):
        return {"unreadable": {name: asdict(revealed)}}
    return {name: None if revealed is None else readable(revealed)}
