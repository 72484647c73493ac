"""The store contract's part for streams: outputs of runs that stand outside the commit.

Invariants (the contract suite tests each on every implementation):

1.  A chunk is taken only while the message of the execution that wrote it exists, so what a stale
    execution still writes is refused (STALE). A run that has ended takes none (CLOSED).
2.  Of each execution a stream takes chunk 0, 1, 2, … exactly once, in this order: what comes again
    is a DUPLICATE and changes nothing, what is ahead is a GAP.
3.  What is in a stream keeps its position. When another execution of a step (one with a younger
    message) begins where an earlier one wrote chunks, a reset comes first; from then on the
    earlier one's chunks are void and no reader is given them any more.
4.  A stream is closed by its writer, or with its run. A writer's close is void like its chunks: an
    execution that follows opens the stream again.
5.  Streams are kept as long as their run, and removed with it.
6.  An append is new work: it is refused where there is no room (`StoreFullError`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from fluvial.errors import (
    InvalidRequestError,
    RunNotFoundError,
    StreamClosedError,
    StreamFullError,
)
from fluvial.stream_entries import (
    MAX_APPEND_BYTES,
    MAX_CHUNKS,
    MAX_SEALED_CHUNK_BYTES,
    StreamEntry,
    check_stream_name,
)

MAX_STREAMS: Final = 256  # of a run: their names are listed in one answer
DEFAULT_STREAM_BYTES: Final = 64 * 1024 * 1024  # of all streams of a run, void chunks included
ENTRY_BYTES: Final = 128  # what an entry costs a store beside its payload, about; it counts too


class AppendOutcome(StrEnum):
    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # all of it had been accepted before
    STALE = "stale"  # the writer's message does not exist any more, or a younger one has written
    CLOSED = "closed"  # the stream was closed, or the run has ended
    GAP = "gap"  # chunks are missing between `next_index` and the first of these
    FULL = "full"  # the run's streams would have more bytes than they may
    TOO_MANY = "too_many"  # the run would have more streams than it may
    UNKNOWN = "unknown"  # no such run


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWriter:
    """One execution of a step."""

    step_id: int
    attempt: int
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Append:
    """Chunks of one writer for one stream. Without chunks it only makes the stream the writer's."""

    run_id: str
    name: str
    writer: StreamWriter
    first: int  # the index of the first chunk among all that this writer wrote into this stream
    chunks: tuple[bytes, ...] = ()  # sealed
    close: bool = False  # behind the chunks


@dataclass(frozen=True, slots=True)
class AppendAnswer:
    """What became of an append; `next_index` is the index of the writer's next chunk."""

    outcome: AppendOutcome
    next_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPage:
    """A part of a stream, without what is void."""

    app: str  # the run's
    entries: tuple[StreamEntry, ...]
    next: int  # the position behind the last one that was looked at
    length: int
    closed: bool  # nothing will ever follow `next`


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """A stream without what is in it."""

    name: str
    length: int
    bytes: int  # of all payloads
    closed: bool


class StreamStore(Protocol):
    """What a store offers for streams."""

    async def append_stream(self, append: Append) -> AppendAnswer:
        """Add chunks to a stream, which is made where it does not exist.

        Raises:
            InvalidRequestError: it is above a limit of `check_append`.
            OutcomeUnknownError: repeat it unchanged.
            StoreFullError, StoreUnavailableError: nothing was written; repeat it later.
        """
        ...

    async def read_stream(
        self, run_id: str, name: str, *, start: int, limit: int = MAX_CHUNKS
    ) -> StreamPage | None:
        """Return entries from position `start`, or from the last -`start` ones if it is negative;
        at most `limit` and about `MAX_APPEND_BYTES`. A stream that does not exist is empty; None:
        there is no such run."""
        ...

    async def list_streams(self, run_id: str) -> list[StreamRecord] | None:
        """Return a run's streams in the order in which they were made; None: no such run."""
        ...


def check_append(append: Append) -> None:
    """Refuse an append that no store takes.

    Raises:
        InvalidRequestError: a name, an index or a size is wrong; the message says which.
    """
    check_stream_name(append.name)
    if append.first < 0:
        raise InvalidRequestError(f"a chunk's index must not be negative, got {append.first}")
    if len(append.chunks) > MAX_CHUNKS:
        raise InvalidRequestError(f"{len(append.chunks)} chunks in one append, above {MAX_CHUNKS}")
    largest = max(map(len, append.chunks), default=0)
    if largest > MAX_SEALED_CHUNK_BYTES:
        raise InvalidRequestError(
            f"a chunk of {largest} bytes is above the limit of {MAX_SEALED_CHUNK_BYTES}"
        )
    size = sum(map(len, append.chunks))
    if size > MAX_APPEND_BYTES:
        raise InvalidRequestError(f"{size} bytes in one append, above {MAX_APPEND_BYTES}")


def check_page(name: str, limit: int) -> None:
    """Refuse a page that no store gives.

    Raises:
        InvalidRequestError: the name or the limit is wrong.
    """
    check_stream_name(name)
    if not 1 <= limit <= MAX_CHUNKS:
        raise InvalidRequestError(f"limit must be 1 to {MAX_CHUNKS}, got {limit}")


def check_answer(append: Append, answer: AppendAnswer) -> None:
    """Tell the writer of a refusal.

    Raises:
        StreamClosedError, StreamFullError, RunNotFoundError, InvalidRequestError
    """
    what = f"stream {append.name!r}"
    match answer.outcome:
        case AppendOutcome.ACCEPTED | AppendOutcome.DUPLICATE:
            return
        case AppendOutcome.STALE:
            raise StreamClosedError(f"{what}: this execution of the step is not wanted any more")
        case AppendOutcome.CLOSED:
            raise StreamClosedError(f"{what} was closed")
        case AppendOutcome.FULL:
            raise StreamFullError(
                f"{what}: the streams of {append.run_id} have no room for "
                f"{sum(map(len, append.chunks))} bytes more; the store's option stream_bytes is "
                "the limit"
            )
        case AppendOutcome.TOO_MANY:
            raise StreamFullError(f"{what}: {append.run_id} has {MAX_STREAMS} streams already")
        case AppendOutcome.GAP:
            raise InvalidRequestError(
                f"{what}: chunk {append.first} comes before {answer.next_index}"
            )
        case AppendOutcome.UNKNOWN:
            raise RunNotFoundError(append.run_id)
