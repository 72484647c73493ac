"""Frames: how the programs speak to each other over a stream socket.

A frame is two big-endian 32-bit lengths, a msgpack header and raw body bytes:

    header_bytes:u32  body_bytes:u32  header: msgpack [type, id, *fields]  body

One connection carries many conversations; `id` tells them apart and is chosen by the side that
opens the conversation (an invocation by the gateway, a call by the instance). Fields are
positional; a reader ignores fields it does not know, so fields are only ever appended. A frame
type that a reader does not know, or a length above the limits, closes the connection.

Flow control: each side may send at most `INITIAL_CREDIT` body bytes of REQUEST_BODY (or RESPONSE
and RESPONSE_BODY) per id before the other side grants more with CREDIT. A reader grants credit as
its consumer takes the bytes, so one slow consumer bounds its own memory and stops nobody else.
The first chunk in REQUEST counts too. INVOKE, ANSWER, CALL and REPLY are not flow-controlled:
their bodies are bounded by MAX_BODY_BYTES and one is sent per id.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, Final, cast

import msgpack

from fluvial.errors import WireError

PROTOCOL_VERSION: Final = 1
MAX_HEADER_BYTES: Final = 256 * 1024
MAX_HEADER_ITEMS: Final = 16 * 1024  # of one array or map in a header
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
CHUNK_BYTES: Final = 64 * 1024  # the largest HTTP body chunk that a sender puts into one frame
INITIAL_CREDIT: Final = 256 * 1024

_LENGTHS = struct.Struct(">II")
_LENGTHS_BYTES: Final = _LENGTHS.size
_pack_lengths = _LENGTHS.pack
_unpack_lengths = _LENGTHS.unpack_from
_packb = msgpack.packb
_pack_plain = msgpack.Packer().pack  # saves making a packer, which costs more than a small header
_unpackb = msgpack.unpackb


class FrameType(IntEnum):
    """What a frame says; the comment lists the header's fields after `[type, id, …`.

    g gateway, i instance, v invoker, b builder.
    """

    # Gateway and instance: the link
    HELLO = 1  # g→i version:int, credential:bytes, gateway:str, partitions:int, app_url:str,
    #                token:bytes (of the WATCH that was sent before; empty: none was)
    WELCOME = 2  # i→g version:int, instance:str, max_concurrency:int, import_ms:int
    GOAWAY = 3  # i→g reason:str; no further invocation is accepted, those under way finish
    CREDIT = 4  # both bytes:int; id is the invocation's
    WATCH = 5  # g→i token:bytes; the only frame of a connection that carries nothing but HEALTH
    HEALTH = 6  # i→g trouble:str ("": none), claimed:int, sample:[int]; claimed of 0 or more: what
    #              has a greater id on the link has not started, and will not until RESUME; sample:
    #              limit, in_flight, lag_us, cpu, memory, descriptors (thousandths),
    #              waiting_for_thread
    RESUME = 7  # g→i last:int; the answer to such a HEALTH, on the link: the last id before it
    KEEP = 8  # g→i wanted:bool; do not retire for idleness, until a link that said so is gone

    # Gateway and instance: HTTP invocations
    REQUEST = 10  # g→i invocation:str, method:str, target:bytes, headers:[[bytes,bytes]],
    #                    client:[host,port]|nil, scheme:str, http_version:str,
    #                    deadline_ms:int (time left), more:bool; body: first chunk.
    #                    Scheme ws or wss: a WebSocket handshake that the gateway has checked
    REQUEST_BODY = 11  # g→i more:bool; body: chunk
    RESPONSE = 12  # i→g status:int, head_bytes:int, framing:int, more:bool;
    #                    body: serialised head, then the first chunk
    RESPONSE_BODY = 13  # i→g more:bool; body: chunk
    FINISHED = 14  # i→g cpu_us:int, outcome:str; last frame of every HTTP and step invocation
    NACK = 15  # i→g reason:str; the handler was not started: send it elsewhere. Reasons: draining,
    #             concurrency, lag, cpu, memory, descriptors, threads
    BROKEN = 16  # i→g code:str; a started response cannot be completed: break the connection
    CANCEL = 17  # g→i reason:str ("timeout": its deadline has passed); answered by FINISHED or
    #              ANSWER with outcome "cancelled" or "timeout"

    # Gateway and instance: turns and steps
    INVOKE = 20  # g→i kind:str, meta:map; body: as invocations.py says
    ANSWER = 21  # i→g outcome:str, meta:map, cpu_us:int; body: as invocations.py says
    FORGET = 22  # g→i run_ids:[str]; a hint: these live runs will not be asked for again
    HEARTBEAT = 23  # i→g no fields; id is the INVOKE's; body: a step's sealed progress, or empty

    # Instance calls the platform (start a run, read a run, resume a hook)
    CALL = 30  # i→g invocation id (0: none):int, operation:str, arguments:map; body: payload
    REPLY = 31  # g→i code:str ("ok" or an error code), result:map; body: payload

    # Gateway and invoker
    ACQUIRE = 50  # g→v deployment:map (DeploymentSpec), exclude:[instance id],
    #                    alone:bool (a fresh instance that nobody else is handed)
    ACQUIRED = 51  # v→g instance:str, address:str, credential:bytes, tier:str, phases_ms:map
    REFUSED = 52  # v→g code:str, message:str; answer to any request of the gateway
    DEAD = 53  # v→g instance:str, reason:str; id 0
    KEYRING = 54  # g→v app:str, operation:str (list, rotate, destroy, freeze, thaw, rewrap),
    #                   key_id:str ("": none; rotate: of the key to be made). An app without keys
    #                   gets its first; what is repeated changes nothing more
    KEYRING_STATE = 55  # v→g state:map (current, frozen_ms, keys:[map], oldest first; no secrets),
    #                         ended:int (instances that were ended for it)
    KILL = 56  # g→v instance:str, grace_ms:int; no answer
    SURVEY = 57  # g→v no fields
    SURVEYED = 58  # v→g instances:[map], zygotes:[map], snapshots:[map]

    # Gateway and invoker: who follows the logs of apps
    WATCH_LOGS = 70  # g→v apps:[str]; id 0, no answer; in place of those watched before
    LOGGED = 71  # v→g app:str; id 0: something was added to the log of a watched app

    # Gateway and builder
    BUILD = 60  # g→b request:map (archive path, limits)
    BUILD_LOG = 61  # b→g text:str
    BUILT = 62  # b→g report:map
    # a failed build answers REFUSED


class Framing(IntEnum):
    """How the gateway must delimit a response's body (the third field of RESPONSE)."""

    LENGTH = 0  # the head has a Content-Length
    STREAM = 1  # length unknown: chunked for HTTP/1.1, until close for HTTP/1.0
    NONE = 2  # no body by the rules of HTTP (HEAD, 1xx, 204, 304)
    TUNNEL = 3  # status 101: from here on the bodies of both directions are the connection's bytes


def pack(frame_type: int, conversation: int, *fields: object, body: bytes = b"") -> bytes:
    """Return one frame.

    Raises:
        WireError: the header or the body is above its limit.
    """
    header = _packb((frame_type, conversation, *fields))
    header_bytes, body_bytes = len(header), len(body)
    if header_bytes > MAX_HEADER_BYTES:
        raise WireError(f"a frame header of {header_bytes} bytes is above {MAX_HEADER_BYTES}")
    if body_bytes > MAX_BODY_BYTES:
        raise WireError(f"a frame body of {body_bytes} bytes is above {MAX_BODY_BYTES}")
    return b"".join((_pack_lengths(header_bytes, body_bytes), header, body))


def pack_plain(frame_type: int, conversation: int, *fields: object, body: bytes = b"") -> bytes:
    """Return one frame, for the paths that each request takes.

    All fields must be of built-in types, and one thread alone may call this: the packer is shared,
    and nothing else may pack while it works.

    Raises:
        WireError: the header or the body is above its limit.
    """
    header = _pack_plain((frame_type, conversation, *fields))
    header_bytes, body_bytes = len(header), len(body)
    if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
        return pack(frame_type, conversation, *fields, body=body)  # which says what is wrong
    return b"".join((_pack_lengths(header_bytes, body_bytes), header, body))


def pack_head(frame_type: int, conversation: int, *fields: object, body_bytes: int) -> bytes:
    """Return what stands before the body of a frame, for a sender that keeps the body apart."""
    header = _packb((frame_type, conversation, *fields))
    return _pack_lengths(len(header), body_bytes) + header


class FrameReader:
    """Cuts a byte stream into frames; one per connection, not safe for threads."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[list[Any], bytes]]:
        """Yield (header, body) for each frame that `data` completes.

        The iterator must be exhausted (or the reader thrown away) before the next call.

        Raises:
            WireError: a length is above its limit or a header is not a msgpack array.
        """
        buffer = self._buffer
        source: bytes | memoryview = data  # as long as no frame was begun before: no copy
        if buffer:
            buffer += data
            source = memoryview(buffer)
        start, end = 0, len(source)
        try:
            while end - start >= _LENGTHS_BYTES:
                header_bytes, body_bytes = _unpack_lengths(source, start)
                if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
                    raise WireError(f"frame lengths {header_bytes}, {body_bytes} above the limits")
                header_start = start + _LENGTHS_BYTES
                body_start = header_start + header_bytes
                stop = body_start + body_bytes
                if stop > end:
                    break
                header = _header(source[header_start:body_start])
                start = stop
                yield header, bytes(source[body_start:stop])
        finally:
            if isinstance(source, memoryview):
                source.release()
                del buffer[:start]
            elif start < end:
                buffer += source[start:]


def _header(data: bytes | memoryview) -> list[Any]:
    try:
        header: Any = _unpackb(
            data, max_array_len=MAX_HEADER_ITEMS, max_map_len=MAX_HEADER_ITEMS, max_ext_len=0
        )
    except Exception as error:
        raise WireError("a frame header is not msgpack") from error
    if not isinstance(header, list):
        raise WireError("a frame header is not an array")
    fields = cast("list[Any]", header)
    if len(fields) < 2 or not isinstance(fields[0], int) or not isinstance(fields[1], int):
        raise WireError("a frame header does not begin with a type and an id")
    return fields
