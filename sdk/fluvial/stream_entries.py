"""What stands in a stream: chunks, and the markers that void chunks of an execution cut short.

Positions count everything in a stream from 0, in the order in which the store took it in. An entry
travels to readers as a msgpack array `[position, step, attempt, index, at_ms, since, payload]`:

    index    of a chunk among those of its execution, from 0; 0 for a reset
    since    nil for a chunk; for a reset, the position of the first chunk that it voids: those of
             the same step between there and the reset
    payload  a chunk's value, sealed for (run, "chunk", `place_of_chunk`, index); empty for a reset
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from fluvial.errors import InvalidRequestError, WireError

DEFAULT_STREAM: Final = "default"
MAX_STREAM_NAME_CHARACTERS: Final = 128
MAX_CHUNK_BYTES: Final = 1024 * 1024  # of one value, encoded: what is larger belongs elsewhere
MAX_SEALED_CHUNK_BYTES: Final = MAX_CHUNK_BYTES + 1024  # with its envelope
# Of one append, and of one page that is read: a few milliseconds of the store's time.
MAX_CHUNKS: Final = 512
MAX_APPEND_BYTES: Final = 4 * 1024 * 1024

_NAME: Final = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:/-]{{0,{MAX_STREAM_NAME_CHARACTERS - 1}}}")
_FIELDS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """A chunk, or a reset."""

    position: int
    step_id: int
    attempt: int
    index: int
    at_ms: int
    payload: bytes = b""
    since: int | None = None

    def encode(self) -> bytes:
        """Return the bytes that travel to a reader."""
        place = (self.position, self.step_id, self.attempt, self.index)
        return msgpack.packb((*place, self.at_ms, self.since, self.payload))


def decode_entry(data: bytes) -> StreamEntry:
    """Return the entry that `data` holds.

    Raises:
        WireError: `data` is not an entry.
    """
    try:
        fields: Any = msgpack.unpackb(data)
        position, step_id, attempt, index, at_ms, since, payload = fields[:_FIELDS]
    except Exception as error:
        raise WireError("not an entry of a stream") from error
    return StreamEntry(
        position=position,
        step_id=step_id,
        attempt=attempt,
        index=index,
        at_ms=at_ms,
        since=since,
        payload=payload,
    )


def place_of_chunk(name: str, step_id: int, attempt: int) -> str:
    """Return where the chunks of one attempt in one stream belong: the id of their binding."""
    return f"{step_id}.{attempt}:{name}"


def check_stream_name(name: str) -> str:
    """Return a name that a stream may have.

    Raises:
        InvalidRequestError: it is another.
    """
    if _NAME.fullmatch(name) is None:
        raise InvalidRequestError(
            f"a stream's name has 1 to {MAX_STREAM_NAME_CHARACTERS} characters, letters, digits or "
            f"any of ._:/- with a letter or a digit first; got {name[:200]!r}"
        )
    return name
