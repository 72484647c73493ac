"""Operations that show what runs have written to their streams: as a page, followed, or raw.

Names and sizes are there for `runs:read`. What is in a stream needs `data:read`: it is decrypted by
the run's deployment, a page at a time.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, cast

from starlette.responses import JSONResponse, Response

from fluvial.errors import FluvialError, UnavailableError
from fluvial.events import Event, EventType
from fluvial.invocations import Unreadable
from fluvial.stream_entries import MAX_CHUNKS, MAX_STREAM_NAME_CHARACTERS, StreamEntry
from fluvial_gateway.auth import Scope
from fluvial_gateway.control.operations import Call, Operation, Parameter, Reply
from fluvial_gateway.control.parameters import RUN_IN_PATH, limit
from fluvial_gateway.control.schemas import array, integer, obj, text
from fluvial_gateway.control.streaming import GeneratedResponse, json_line, server_sent
from fluvial_gateway.control.views import time_text
from fluvial_gateway.revealing import Revealer, readable
from fluvial_gateway.runs import Runs
from fluvial_gateway.streams import Streams
from fluvial_gateway.waits import LongWaits
from fluvial_queue.contract import RunRecord
from fluvial_queue.stream_contract import StreamPage, StreamRecord

_LOG = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS: Final = 15.0
MAX_WAIT_SECONDS: Final = 60
_KEEP_ALIVE: Final = b": still here\n\n"
_FOLLOW_SECONDS: Final = 3600.0  # then the client connects again where it was
_FOLLOW_ENTRIES: Final = 200  # read at once; each batch is one reveal
_MOST_POSITION: Final = 2**31 - 1
_EVENT_STREAM: Final = "text/event-stream"
_RAW: Final = "application/octet-stream"
_SHOWN: Final = ("value", "bytes", "repr")  # how a chunk's text says what it holds

_ENTRY: Final = obj(
    {
        "position": {"type": "integer"},
        "type": text("chunk, or reset: chunks of the step since `since` are void."),
        "step": {"type": "integer"},
        "attempt": {"type": "integer"},
        "at": text(),
        "since": {"type": "integer"},
        "value": {"description": "A chunk that is text or another JSON value."},
        "bytes": text("A chunk of bytes, in base64."),
        "repr": text("Any other chunk, as Python shows it."),
        "unreadable": text("Why a chunk cannot be shown."),
    },
    required=["position", "type", "step", "attempt", "at"],
)
_STREAM: Final = obj(
    {
        "name": text(),
        "length": {"type": "integer", "description": "In positions."},
        "bytes": {"type": "integer", "description": "As stored, encrypted."},
        "closed": {"type": "boolean"},
    },
    required=["name", "length", "bytes", "closed"],
)


class ReadingStreamsOperations:
    """Handlers over the streams of runs."""

    def __init__(
        self,
        runs: Runs,
        streams: Streams,
        revealer: Revealer,
        waits: LongWaits,
        *,
        keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    ) -> None:
        self._runs = runs
        self._streams = streams
        self._revealer = revealer
        self._waits = waits
        self._keep_alive_seconds = keep_alive_seconds

    def operations(self) -> list[Operation]:
        return [
            Operation(
                method="GET",
                path="/v1/runs/{id}/streams",
                name="listStreams",
                summary="List a run's streams",
                handler=self.list_streams,
                scopes=(Scope.RUNS_READ,),
                parameters=(RUN_IN_PATH,),
                replies={
                    200: Reply(
                        "The streams in the order in which they were made.",
                        obj({"streams": array(_STREAM)}),
                    )
                },
                problems=("run_not_found",),
            ),
            Operation(
                method="GET",
                path="/v1/runs/{id}/streams/{name:path}",
                name="readStream",
                summary="Read or follow one of a run's streams",
                description=(
                    f"With `Accept: {_EVENT_STREAM}` entries are sent as they are written, the id "
                    "of each is its position, Last-Event-ID resumes, resets are events of the type "
                    f"`reset`, and `end` says that the stream is closed. With `Accept: {_RAW}` the "
                    "chunks follow each other until the stream is closed: bytes and text as they "
                    "are, anything else as a line of JSON; a connection that breaks is not the end."
                ),
                handler=self.read,
                scopes=(Scope.DATA_READ,),
                parameters=(
                    RUN_IN_PATH,
                    Parameter(
                        "name",
                        "path",
                        text(minLength=1, maxLength=MAX_STREAM_NAME_CHARACTERS),
                        "The stream's name.",
                    ),
                    Parameter(
                        "start",
                        "query",
                        integer(-_MOST_POSITION, _MOST_POSITION, default=0),
                        "The first position; negative: so many before the end.",
                    ),
                    limit(100, MAX_CHUNKS),
                    Parameter(
                        "wait",
                        "query",
                        integer(0, MAX_WAIT_SECONDS, default=0),
                        "How many seconds a page waits for its first entry.",
                    ),
                    Parameter(
                        "last-event-id",
                        "header",
                        integer(0, _MOST_POSITION),
                        "The last position that a follower has seen.",
                    ),
                ),
                replies={
                    200: Reply(
                        "Entries in order; nothing follows `next` once it is closed.",
                        obj(
                            {
                                "entries": array(_ENTRY),
                                "next": {"type": "integer"},
                                "length": {"type": "integer"},
                                "closed": {"type": "boolean"},
                            }
                        ),
                    ),
                    204: Reply("To a follower: the stream is closed and nothing more is in it."),
                },
                problems=("run_not_found", "not_revealed", "too_many_waits"),
            ),
        ]

    async def list_streams(self, call: Call) -> Response:
        record = await self._runs.get(call.path["id"])
        records = await self._streams.records(record.run_id)
        return JSONResponse({"streams": [_stream_view(stream) for stream in records]})

    async def read(self, call: Call) -> Response:
        record = await self._runs.get(call.path["id"])
        accepted = call.request.headers.get("accept", "")
        seen = call.headers["last-event-id"]
        start = call.query["start"] if seen is None else seen + 1
        if _EVENT_STREAM in accepted:
            page = await self._streams.read(record.run_id, call.path["name"], start=start, limit=1)
            if page.closed and not page.entries:
                return Response(status_code=204)  # tells an EventSource not to connect again
            self._waits.check()
            return GeneratedResponse(self._follow(call, record, start), media_type=_EVENT_STREAM)
        if _RAW in accepted:
            self._waits.check()
            return GeneratedResponse(self._raw(call, record, start), media_type=_RAW)
        page = await self._page(call, record, start)
        return JSONResponse(
            {
                "entries": await self._views(call, record, page),
                "next": page.next,
                "length": page.length,
                "closed": page.closed,
            }
        )

    async def _page(self, call: Call, record: RunRecord, start: int) -> StreamPage:
        name, count = call.path["name"], call.query["limit"]
        seconds = float(call.query["wait"])
        if seconds:
            try:
                async with self._waits.admitted(seconds):
                    return await self._streams.read(
                        record.run_id, name, start=start, limit=count, wait_seconds=seconds
                    )
            except TimeoutError:
                pass
        return await self._streams.read(record.run_id, name, start=start, limit=count)

    async def _follow(
        self, call: Call, record: RunRecord, start: int
    ) -> AsyncGenerator[bytes, None]:
        position = start
        try:
            async with self._waits.admitted(_FOLLOW_SECONDS):
                while True:
                    page = await self._next(call, record, position)
                    for view in await self._views(call, record, page):
                        kind = "reset" if view["type"] == "reset" else ""
                        yield server_sent(view["position"], view, event=kind)
                    position = page.next
                    if page.closed:
                        yield server_sent(max(0, position - 1), {"next": position}, event="end")
                        return
                    if not page.entries:
                        yield _KEEP_ALIVE
        except TimeoutError:
            return  # the client connects again, maybe to another gateway
        except FluvialError as error:
            # The stream has begun, so its end is all that can be said; the client connects again.
            _LOG.warning("a stream's follower was dropped", extra={"code": error.code})

    async def _raw(self, call: Call, record: RunRecord, start: int) -> AsyncGenerator[bytes, None]:
        """Give the chunks alone. What goes wrong is raised: it breaks the connection, so that the
        client does not take what it has for the whole."""
        position = start
        try:
            async with self._waits.admitted(_FOLLOW_SECONDS):
                while True:
                    page = await self._next(call, record, position)
                    for view in await self._views(call, record, page):
                        if view["type"] == "chunk":
                            yield _raw_chunk(view)
                    position = page.next
                    if page.closed:
                        return
        except TimeoutError as error:
            raise UnavailableError("a stream was read for as long as one request may") from error

    async def _next(self, call: Call, record: RunRecord, position: int) -> StreamPage:
        return await self._streams.read(
            record.run_id,
            call.path["name"],
            start=position,
            limit=_FOLLOW_ENTRIES,
            wait_seconds=self._keep_alive_seconds,
        )

    async def _views(
        self, call: Call, record: RunRecord, page: StreamPage
    ) -> Sequence[dict[str, Any]]:
        chunks = [entry for entry in page.entries if entry.since is None]
        events = [_event(call.path["name"], entry).encode() for entry in chunks]
        texts: Sequence[Any] = ()
        if events:
            texts = await self._revealer.reveal(call.principal, record, events)
        shown = dict(zip((entry.position for entry in chunks), texts, strict=True))
        return [_entry_view(entry, shown.get(entry.position)) for entry in page.entries]


def _event(name: str, entry: StreamEntry) -> Event:
    """Return a chunk as an instance is asked to reveal it."""
    meta = {"stream": name, "attempt": entry.attempt, "index": entry.index}
    return Event(EventType.STREAM_CHUNK, entry.at_ms, entry.step_id, entry.payload, meta)


def _stream_view(stream: StreamRecord) -> dict[str, Any]:
    return {
        "name": stream.name,
        "length": stream.length,
        "bytes": stream.bytes,
        "closed": stream.closed,
    }


def _entry_view(entry: StreamEntry, revealed: object) -> dict[str, Any]:
    view: dict[str, Any] = {
        "position": entry.position,
        "type": "chunk" if entry.since is None else "reset",
        "step": entry.step_id,
        "attempt": entry.attempt,
        "at": time_text(entry.at_ms),
    }
    if entry.since is not None:
        return {**view, "since": entry.since}
    return {**view, **_content(revealed)}


def _content(revealed: object) -> dict[str, Any]:
    """Return the member that holds a chunk; what an instance says may be anything."""
    if isinstance(revealed, Unreadable):
        return {"unreadable": f"{revealed.code}: {revealed.message}"}
    found = readable(revealed) if isinstance(revealed, str) else None
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    for name in _SHOWN:
        if name in fields and (name == "value" or isinstance(fields[name], str)):
            return {name: fields[name]}
    return {"unreadable": str(revealed)}


def _raw_chunk(view: dict[str, Any]) -> bytes:
    if "bytes" in view:
        try:
            return base64.b64decode(view["bytes"], validate=True)
        except (ValueError, binascii.Error) as error:
            raise UnavailableError("an instance revealed bytes that are not base64") from error
    if "unreadable" in view:
        raise UnavailableError(f"chunk {view['position']} cannot be shown: {view['unreadable']}")
    value = view.get("value", view.get("repr"))
    if isinstance(value, str):
        return value.encode("utf-8", "replace")
    return json_line(value)
