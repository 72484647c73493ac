"""Operations that read what apps have printed and logged: as a page, or followed.

Logs are clear text, and whoever writes them decides what stands there. So reading them needs a
scope of its own, which nothing else includes, and leaves a line in the audit log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from starlette.responses import JSONResponse, Response

from fluvial.errors import FluvialError, InvalidRequestError
from fluvial.ids import created_ms, partition_of
from fluvial.log_files import LAST_MS, LEVELS, LogPosition
from fluvial.manifest import APP_NAME, MAX_DURATION_SECONDS
from fluvial_gateway.auth import Principal, Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import limit
from fluvial_gateway.control.schemas import Schema, array, integer, obj, text
from fluvial_gateway.control.streaming import GeneratedResponse, compact
from fluvial_gateway.control.times import MOMENT_OR_AGE, moment_or_age_ms
from fluvial_gateway.log_reading import LogFilter, LogPage, LogReading
from fluvial_gateway.log_watching import LogWatch, LogWatches
from fluvial_gateway.waits import LongWaits
from fluvial_queue.contract import RunRecord
from fluvial_queue.records import AppRecord

_AUDIT = logging.getLogger("fluvial_gateway.audit")
_LOG = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 15.0
MAX_RECORDS: Final = 1000
_KEEP_ALIVE: Final = b": still here\n\n"
_FOLLOW_SECONDS: Final = 3600.0  # then the client connects again where it was
_FOLLOW_RECORDS: Final = 200  # read at once
_EVENT_STREAM: Final = "text/event-stream"
_MAX_CHARACTERS: Final = 256
# The clocks of the store and of this machine differ, and threads may outlive what started them.
_MARGIN_MS: Final = 600_000
_LONGEST_INVOCATION_MS: Final = round(MAX_DURATION_SECONDS * 1000)
_FIRST_ID_MS: Final = 1_577_836_800_000  # 2020: no id is older, and what seems so has no time in it
_ANY: Final = text(minLength=1, maxLength=_MAX_CHARACTERS)
_POSITION: Final = text(maxLength=32, pattern="[0-9]{1,13}\\.[0-9]{1,12}")

_RECORD: Final[Schema] = {
    "type": "object",
    "description": (
        "A record: time, level, app, stream and message; and, where they apply, deployment, "
        "instance, invocation, kind, function, run, step, attempt, logger and fields."
    ),
}
_EQUALS: Final = {
    "deployment": "Only of this deployment.",
    "instance": "Only of this instance.",
    "invocation": "Only of this invocation.",
    "kind": "Only of invocations of this kind (http, turn, step), or `instance`: its life.",
    "function": "Only of this function: a workflow's or a step's name, or `http`.",
    "run": "Only of this run.",
}


class AppReader(Protocol):
    """Knows which apps there are."""

    async def app(self, name: str) -> AppRecord: ...


class RunReader(Protocol):
    """The part of a store that knows when runs were."""

    async def read_run(self, run_id: str) -> RunRecord | None: ...


class LogOperations:
    """Handlers over the logs of apps."""

    def __init__(
        self,
        reading: LogReading,
        apps: AppReader,
        runs: RunReader,
        watches: LogWatches,
        waits: LongWaits,
        *,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._reading = reading
        self._apps = apps
        self._runs = runs
        self._watches = watches
        self._waits = waits
        self._keep_alive_seconds = keep_alive_seconds

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/logs",
                name="readLogs",
                summary="Read or follow what an app has printed and logged",
                description=(
                    "A page begins at `cursor`, else with the last records that `tail` says, else "
                    "at `since`, else with what is kept longest. "
                    "A page looks at a bounded part of the log: it may be short, even empty, and "
                    "not the last; `next` is where the next one begins. With "
                    f"`Accept: {_EVENT_STREAM}` records are sent as they are written; the id of "
                    "each is its position, Last-Event-ID resumes behind it, and an event of the "
                    "type `missed` says that what stood there has been deleted meanwhile."
                ),
                handler=self.read,
                scopes=(Scope.LOGS_READ,),
                parameters=(
                    Parameter(
                        "app", "query", text(pattern=APP_NAME.pattern), "Whose log.", required=True
                    ),
                    *(Parameter(name, "query", _ANY, what) for name, what in _EQUALS.items()),
                    Parameter(
                        "level", "query", text(enum=list(LEVELS)), "Only of this level or above."
                    ),
                    Parameter("text", "query", _ANY, "Only with this text in the message."),
                    Parameter(
                        "since",
                        "query",
                        MOMENT_OR_AGE,
                        "Only what was written at or after this time, or at most so long ago.",
                    ),
                    Parameter(
                        "until",
                        "query",
                        MOMENT_OR_AGE,
                        "Only what was written before this time, or longer ago.",
                    ),
                    Parameter(
                        "tail",
                        "query",
                        integer(0, MAX_RECORDS),
                        "Begin with the last so many records that are wanted.",
                    ),
                    limit(100, MAX_RECORDS),
                    Parameter("cursor", "query", _POSITION, "`next` of the page before."),
                    Parameter(
                        "last-event-id",
                        "header",
                        _POSITION,
                        "The last record that a follower has seen.",
                    ),
                ),
                replies={
                    200: Reply(
                        "Records, oldest first. `done`: nothing more is there now.",
                        obj(
                            {
                                "records": array(_RECORD),
                                "next": text(),
                                "done": {"type": "boolean"},
                                "missed": {
                                    "type": "boolean",
                                    "description": "What stood at the cursor has been deleted.",
                                },
                            },
                            required=["records", "next", "done", "missed"],
                        ),
                    )
                },
                problems=("app_not_found", "too_many_waits"),
            )
        ]

    async def read(self, call: Call) -> Response:
        app = call.query["app"]
        is_followed = _EVENT_STREAM in call.request.headers.get("accept", "")
        wanted = _filter(call.query, round(time.time() * 1000))
        if is_followed and wanted.until_ms is not None:
            raise InvalidRequestError("query parameter until: a log that is followed has no end")
        wanted = await self._within_life(wanted, is_followed=is_followed)
        position = call.headers["last-event-id"] or call.query["cursor"]
        start = None if position is None else LogPosition.parse(position)
        if not self._reading.has(app):
            await self._apps.app(app)  # who mistypes a name is told
        if start is not None:
            wanted = replace(wanted, since_ms=None)  # an age means another moment than before
        _audit(call.principal, app, call.query)
        tail = call.query["tail"]
        if start is None and tail is not None:
            start = await self._reading.last(app, wanted, tail)
        if is_followed:
            self._waits.check()
            self._watches.check()
            return GeneratedResponse(self._follow(app, wanted, start), media_type=_EVENT_STREAM)
        page = await self._reading.page(app, wanted, start, limit=call.query["limit"])
        return JSONResponse(
            {
                "records": [record for _, record in page.records],
                "next": str(page.next),
                "done": page.done,
                "missed": page.missed,
            }
        )

    async def _within_life(self, wanted: LogFilter, *, is_followed: bool) -> LogFilter:
        """Look only where the run or the invocation that is asked for may have written."""
        since, until = 0, LAST_MS
        if wanted.run is not None:
            partition_of(wanted.run)  # refuses what is no run id
            found = await self._runs.read_run(wanted.run)
            if found is not None:
                since = found.created_ms
                until = found.finished_ms or LAST_MS
        if wanted.invocation is not None:
            began = _began_ms(wanted.invocation)
            if began:
                since, until = max(since, began), min(until, began + _LONGEST_INVOCATION_MS)
        since, until = max(since - _MARGIN_MS, wanted.since_ms or 0), until + _MARGIN_MS
        if wanted.until_ms is not None:
            until = min(until, wanted.until_ms)
        is_open = is_followed or until > LAST_MS
        return replace(wanted, since_ms=since or None, until_ms=None if is_open else until)

    async def _follow(
        self, app: str, wanted: LogFilter, start: LogPosition | None
    ) -> AsyncGenerator[bytes, None]:
        # The next page is read once the client has taken the one before: a slow follower holds one
        # page, and falls behind in files that are kept anyway.
        position = start
        try:
            with self._watches.watching(app) as watch:
                async with self._waits.admitted(_FOLLOW_SECONDS):
                    while True:
                        page = await self._next(app, wanted, position, watch)
                        if page.missed:
                            yield _missed(page)
                        for behind, record in page.records:
                            yield _sent(behind, record)
                        if not page.records and page.done:
                            yield _KEEP_ALIVE
                        position = page.next
        except TimeoutError:
            return  # the client connects again, maybe to another gateway
        except FluvialError as error:
            # The stream has begun, so its end is all that can be said; the client connects again.
            _LOG.warning("a log's follower was dropped", extra={"code": error.code})

    async def _next(
        self, app: str, wanted: LogFilter, position: LogPosition | None, watch: LogWatch
    ) -> LogPage:
        """Return the next page; an empty one of a log's end only after the keep-alive time."""
        watch.reset()
        page = await self._reading.page(app, wanted, position, limit=_FOLLOW_RECORDS)
        if page.records or page.missed or not page.done:
            return page
        await watch.wait(self._keep_alive_seconds)
        return await self._reading.page(app, wanted, page.next, limit=_FOLLOW_RECORDS)


def _filter(values: Mapping[str, Any], now_ms: int) -> LogFilter:
    moments = {
        name: None
        if values[name] is None
        else moment_or_age_ms(values[name], now_ms, f"query parameter {name}")
        for name in ("since", "until")
    }
    return LogFilter(
        **{name: values[name] for name in _EQUALS},
        level=values["level"],
        text=values["text"],
        since_ms=moments["since"],
        until_ms=moments["until"],
    )


def _began_ms(invocation: str) -> int:
    """Return when an invocation began, as its id says; 0: it does not."""
    try:
        began = created_ms(invocation)
    except InvalidRequestError:
        return 0
    return began if began >= _FIRST_ID_MS else 0


def _sent(position: LogPosition, record: dict[str, Any]) -> bytes:
    return f"id: {position}\ndata: {compact(record)}\n\n".encode()


def _missed(page: LogPage) -> bytes:
    return f"event: missed\ndata: {compact({'next': str(page.next)})}\n\n".encode()


def _audit(principal: Principal, app: str, filters: Mapping[str, Any]) -> None:
    given = sorted(name for name, value in filters.items() if value is not None)
    _AUDIT.info(
        "logs read",
        extra={
            "token_id": principal.token_id,
            "token_name": principal.name,
            "app": app,
            "filters": given,
        },
    )
