"""Streams of one run in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fluvial.stream_entries import MAX_APPEND_BYTES, StreamEntry
from fluvial_queue.contract import message_order
from fluvial_queue.stream_contract import (
    ENTRY_BYTES,
    MAX_STREAMS,
    Append,
    AppendAnswer,
    AppendOutcome,
    StreamPage,
    StreamRecord,
)


@dataclass(frozen=True, slots=True)
class _Execution:
    """The newest execution of a step that wrote into a stream."""

    message_id: str
    next_index: int
    since: int  # the position of its first chunk
    number: int  # which of the step's executions it is there, from 1


@dataclass(slots=True)
class _Stream:
    """What is in one stream."""

    entries: list[tuple[int, StreamEntry]] = field(  # with the number of the execution
        default_factory=list[tuple[int, StreamEntry]]
    )
    executions: dict[int, _Execution] = field(default_factory=dict[int, _Execution])
    bytes: int = 0
    closer: int = 0  # the step that closed it

    def is_void(self, number: int, entry: StreamEntry) -> bool:
        """Return whether a younger execution has written since."""
        return entry.since is None and number < self.executions[entry.step_id].number


class RunStreams:
    """All streams of a run."""

    def __init__(self) -> None:
        self._streams: dict[str, _Stream] = {}
        self._bytes = 0

    def append(self, append: Append, now_ms: int, most_bytes: int) -> AppendAnswer:
        """Add chunks of an execution whose message exists."""
        stream = self._streams.get(append.name) or _Stream()
        known = stream.executions.get(append.writer.step_id)
        mine = _execution(known, append)
        if mine is None:
            return AppendAnswer(AppendOutcome.STALE)
        if append.first > mine.next_index:
            return AppendAnswer(AppendOutcome.GAP, mine.next_index)
        chunks = append.chunks[mine.next_index - append.first :]
        closer = stream.closer
        if mine is not known and closer == append.writer.step_id:
            closer = 0
        if mine is known and not chunks and not (append.close and closer == 0):
            return AppendAnswer(AppendOutcome.DUPLICATE, mine.next_index)
        if closer:
            return AppendAnswer(AppendOutcome.CLOSED, mine.next_index)
        if append.name not in self._streams and len(self._streams) >= MAX_STREAMS:
            return AppendAnswer(AppendOutcome.TOO_MANY, mine.next_index)
        voids = mine is not known and known is not None and known.next_index > 0
        size = sum(map(len, chunks))
        total = self._bytes + size + (len(chunks) + voids) * ENTRY_BYTES
        if chunks and total > most_bytes:
            return AppendAnswer(AppendOutcome.FULL, mine.next_index)
        self._streams[append.name] = stream
        self._bytes = total
        if voids and known is not None:
            _add(stream, append, mine, now_ms, since=known.since)
        if mine is not known:
            mine = replace(mine, since=len(stream.entries))
        for chunk in chunks:
            _add(stream, append, mine, now_ms, payload=chunk)
            mine = replace(mine, next_index=mine.next_index + 1)
        stream.executions[append.writer.step_id] = mine
        stream.bytes += size
        stream.closer = append.writer.step_id if append.close else 0
        return AppendAnswer(AppendOutcome.ACCEPTED, mine.next_index)

    def read(self, app: str, name: str, start: int, limit: int, *, has_ended: bool) -> StreamPage:
        """Return a part of a stream, without what is void."""
        stream = self._streams.get(name) or _Stream()
        length = len(stream.entries)
        position = start if start >= 0 else max(0, length + start)
        found: list[StreamEntry] = []
        size = 0
        for number, entry in stream.entries[position : position + limit]:
            if not stream.is_void(number, entry):
                if found and size + len(entry.payload) > MAX_APPEND_BYTES:
                    break
                size += len(entry.payload)
                found.append(entry)
            position += 1
        closed = position >= length and (has_ended or stream.closer != 0)
        return StreamPage(
            app=app, entries=tuple(found), next=position, length=length, closed=closed
        )

    def records(self, *, has_ended: bool) -> list[StreamRecord]:
        """Return the streams in the order in which they were made."""
        return [
            StreamRecord(
                name=name,
                length=len(stream.entries),
                bytes=stream.bytes,
                closed=has_ended or stream.closer != 0,
            )
            for name, stream in self._streams.items()
        ]


def _execution(known: _Execution | None, append: Append) -> _Execution | None:
    """Return the execution that appends as the stream will know it; None: it is stale."""
    message_id = append.writer.message_id
    if known is None:
        return _Execution(message_id, 0, 0, 1)
    if known.message_id == message_id:
        return known
    if message_order(message_id) < message_order(known.message_id):
        return None
    return _Execution(message_id, 0, 0, known.number + 1)


def _add(
    stream: _Stream,
    append: Append,
    mine: _Execution,
    now_ms: int,
    *,
    payload: bytes = b"",
    since: int | None = None,
) -> None:
    entry = StreamEntry(
        position=len(stream.entries),
        step_id=append.writer.step_id,
        attempt=append.writer.attempt,
        index=0 if since is not None else mine.next_index,
        at_ms=now_ms,
        payload=payload,
        since=since,
    )
    stream.entries.append((mine.number, entry))
