"""What instances ask of streams: to write into those of the run that they execute, and to read.

Which execution writes is known from the link (`LinkContext.subject`), never from the arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluvial.errors import InvalidRequestError
from fluvial.invocations import pack_events, unpack_events
from fluvial.stream_entries import MAX_CHUNKS, MAX_STREAM_NAME_CHARACTERS
from fluvial_gateway.call_arguments import (
    MAX_NAME_CHARACTERS,
    natural_of,
    text_of,
    wait_seconds_of,
)
from fluvial_gateway.link_calls import CallAnswer, CallOperation, LinkContext
from fluvial_gateway.runs import Runs
from fluvial_gateway.streams import Streams


class StreamCalls:
    """Carries out calls about streams."""

    def __init__(self, streams: Streams, runs: Runs) -> None:
        self._streams = streams
        self._runs = runs

    def operations(self) -> Mapping[str, CallOperation]:
        """Return what is carried out here, by name."""
        return {
            "stream_append": self._append,
            "stream_read": self._read,
            "streams": self._list,
        }

    async def _append(
        self, context: LinkContext, arguments: Mapping[str, Any], body: bytes
    ) -> CallAnswer:
        if context.subject is None:
            raise InvalidRequestError("only a step that a run executes writes to its streams")
        await self._streams.append(
            context.app,
            context.subject,
            name=_name(arguments),
            first=natural_of(arguments, "first"),
            chunks=unpack_events(body, at_most=MAX_CHUNKS),
            close=arguments.get("close") is True,
        )
        return {}, b""

    async def _read(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        start = arguments.get("start", 0)
        if not isinstance(start, int) or isinstance(start, bool) or abs(start) >= 2**31:
            raise InvalidRequestError("start: expected a position, or a negative number")
        page = await self._streams.read(
            text_of(arguments, "run_id", MAX_NAME_CHARACTERS),
            _name(arguments),
            start=start,
            wait_seconds=wait_seconds_of(arguments),
            app=context.app,
        )
        found = {"next": page.next, "length": page.length, "closed": page.closed}
        return found, pack_events([entry.encode() for entry in page.entries])

    async def _list(
        self, context: LinkContext, arguments: Mapping[str, Any], _: bytes
    ) -> CallAnswer:
        run_id = text_of(arguments, "run_id", MAX_NAME_CHARACTERS)
        record = await self._runs.get(run_id, app=context.app)
        records = await self._streams.records(record.run_id)
        return {"streams": [(r.name, r.length, r.bytes, r.closed) for r in records]}, b""


def _name(arguments: Mapping[str, Any]) -> str:
    return text_of(arguments, "name", MAX_STREAM_NAME_CHARACTERS)
