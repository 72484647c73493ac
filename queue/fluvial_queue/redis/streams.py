"""Streams of runs in Redis: one hash a run, which every append writes in one script."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

from fluvial.stream_entries import MAX_APPEND_BYTES, StreamEntry
from fluvial_queue.redis import lua
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.lua import Argument, Scripts
from fluvial_queue.stream_contract import (
    ENTRY_BYTES,
    MAX_STREAMS,
    Append,
    AppendAnswer,
    AppendOutcome,
    StreamPage,
    StreamRecord,
)

_HEAD: Final = struct.Struct(">BIIIIQ")  # kind, step, execution, attempt, index or since, time
_RESET: Final = 1


class Streams:
    """Appends to, reads and lists the streams of runs."""

    def __init__(self, scripts: Scripts, keys: Keys, most_bytes: int) -> None:
        self._scripts = scripts
        self._keys = keys
        self._most_bytes = most_bytes

    async def append(self, append: Append) -> AppendAnswer:
        """Add chunks of one execution."""
        writer = append.writer
        arguments: list[Argument] = [
            *(append.name, writer.step_id, writer.attempt, writer.message_id, append.first),
            *(int(append.close), MAX_STREAMS, self._most_bytes, ENTRY_BYTES),
            *(self._keys.bell, append.run_id),
            *append.chunks,
        ]
        outcome, next_index = await self._run(lua.APPEND, append.run_id, arguments)
        return AppendAnswer(AppendOutcome(outcome.decode()), next_index)

    async def read(self, run_id: str, name: str, start: int, limit: int) -> StreamPage | None:
        """Return a part of a stream; None: there is no such run."""
        arguments: list[Argument] = [name, start, limit, MAX_APPEND_BYTES]
        reply = await self._run(lua.READ_STREAM, run_id, arguments)
        if reply is None:
            return None
        app, next_position, length, closed, *entries = reply
        return StreamPage(
            app=app.decode(),
            entries=tuple(map(_entry, entries[::2], entries[1::2])),
            next=next_position,
            length=length,
            closed=bool(closed),
        )

    async def records(self, run_id: str) -> list[StreamRecord] | None:
        """Return a run's streams; None: there is no such run."""
        reply = await self._run(lua.LIST_STREAMS, run_id, [])
        if reply is None:
            return None
        has_ended, *streams = reply
        return [
            _record(name.decode(), state.split(), bool(has_ended))
            for name, state in zip(streams[::2], streams[1::2], strict=True)
        ]

    async def _run(self, script: lua.Script, run_id: str, arguments: list[Argument]) -> Any:
        keys = [self._keys.run(run_id), self._keys.streams(run_id)]
        return await self._scripts.run(script, keys, arguments)


def _entry(position: int, stored: bytes) -> StreamEntry:
    kind, step_id, _, attempt, number, at_ms = _HEAD.unpack_from(stored)
    is_reset = kind == _RESET
    return StreamEntry(
        position=position,
        step_id=step_id,
        attempt=attempt,
        index=0 if is_reset else number,
        at_ms=at_ms,
        payload=stored[_HEAD.size :],
        since=number if is_reset else None,
    )


def _record(name: str, state: Sequence[bytes], has_ended: bool) -> StreamRecord:
    length, size, closer = map(int, state)
    return StreamRecord(name=name, length=length, bytes=size, closed=has_ended or closer != 0)
