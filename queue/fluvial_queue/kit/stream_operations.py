"""What tests and steps ask about streams: steps write, everybody reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fluvial.errors import InvalidRequestError, RunNotFoundError
from fluvial.invocations import pack_events, unpack_events
from fluvial_queue.contract import Store
from fluvial_queue.kit.flights import current_flight
from fluvial_queue.kit.operations import Drive, Operation, OperationAnswer
from fluvial_queue.stream_contract import Append, StreamPage, StreamWriter, check_answer


class StreamOperations:
    """Carries out the operations on streams."""

    def __init__(self, store: Store, drive: Drive) -> None:
        self._store = store
        self._drive = drive

    def operations(self) -> Mapping[str, Operation]:
        """Return the operations by name."""
        return {
            "stream_append": self._append,
            "stream_read": self._read,
            "streams": self._list,
        }

    async def _append(self, arguments: dict[str, Any], body: bytes) -> OperationAnswer:
        flight = current_flight()
        if flight is None:
            raise InvalidRequestError("only a step that a run executes writes to its streams")
        job = flight.job
        writer = StreamWriter(step_id=job.step_id, attempt=job.attempt, message_id=job.message_id)
        append = Append(
            run_id=job.view.run_id,
            name=arguments["name"],
            writer=writer,
            first=arguments["first"],
            chunks=tuple(unpack_events(body)),
            close=arguments.get("close") is True,
        )
        check_answer(append, await self._store.append_stream(append))
        return {}, b""

    async def _read(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        run_id, name = str(arguments["run_id"]), str(arguments["name"])
        page = await self._page(run_id, name, int(arguments.get("start", 0)))
        if arguments.get("wait_ms", 0):
            while not (page.entries or page.closed or page.next < page.length):
                start = page.next
                await self._drive.reach(
                    lambda: self._drive.stream_length(run_id, name) > start,  # noqa: B023 - awaited
                    f"more in stream {name!r} of {run_id}",
                )
                page = await self._page(run_id, name, start)
        found = {"next": page.next, "length": page.length, "closed": page.closed}
        return found, pack_events([entry.encode() for entry in page.entries])

    async def _list(self, arguments: dict[str, Any], _: bytes) -> OperationAnswer:
        run_id = str(arguments["run_id"])
        records = await self._store.list_streams(run_id)
        if records is None:
            raise RunNotFoundError(run_id)
        return {"streams": [(r.name, r.length, r.bytes, r.closed) for r in records]}, b""

    async def _page(self, run_id: str, name: str, start: int) -> StreamPage:
        page = await self._store.read_stream(run_id, name, start=start)
        if page is None:
            raise RunNotFoundError(run_id)
        return page
