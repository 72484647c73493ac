"""msgpack with extension values: the mechanism. `fluvial.extensions` has the table of types.

An extension value is a code and a body of bytes, mostly msgpack again. Codes stand in event logs:
they are never given to something else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import Any, Final, cast

import msgpack


class Code(IntEnum):
    """What kind of value an extension value is."""

    INTEGER = 1  # beyond 64 bits
    DATETIME = 2
    DATE = 3
    TIME = 4
    TIMEDELTA = 5
    DECIMAL = 6
    UUID = 7
    SET = 8
    FROZENSET = 9
    TUPLE = 10
    COMPLEX = 11
    PATH = 12
    PURE_PATH = 13
    ENUM = 14
    DATACLASS = 15
    MODEL = 16
    EXCEPTION = 17
    NAMED_TUPLE = 18
    FRACTION = 19
    ZONE = 20
    FIXED_ZONE = 21
    ADDRESS = 22
    WINDOWS_PATH = 23
    DEQUE = 24
    RANGE = 25
    ORDERED_DICT = 26
    DEFAULT_DICT = 27
    COUNTER = 28
    REGISTERED = 29


PackBody = Callable[[Any], bytes]
UnpackBody = Callable[[bytes], Any]

MAX_DEPTH: Final = 64  # of extension values: each is a call into C with some 50 KiB of stack
TOO_DEEP: Final = "is nested too deeply, or contains itself"

# msgpack takes lists in lists up to 511 deep, at some 350 bytes of C stack each: too much if it may
# do so at every level of extension values, so only the first few levels may.
_FREE_DEPTH: Final = 8
_MAX_PLAIN_DEPTH: Final = 32
_BUFFER_BYTES: Final = 2048  # grows as needed; the default of 256 KiB costs more than the packing
_KEPT_BYTES: Final = 64 * 1024  # a packer whose buffer has grown further is not used again


class UnsupportedValueError(TypeError):
    """A value of a type that has no encoding; internal, becomes a SerializationError."""


class UnreadableValueError(ValueError):
    """A well-formed value that the code here cannot take; internal, as above. Its text is for
    people."""


class _Nesting(threading.local):
    depth = 0


_nesting = _Nesting()
_idle_packers: Final[list[msgpack.Packer]] = []  # making one costs more than most packing does
_packers: Final[dict[type, tuple[int, PackBody]]] = {}  # found in families as well, once asked for
_families: Final[list[tuple[Callable[[Any], bool], int, PackBody]]] = []
_unpackers: Final[dict[int, UnpackBody]] = {}
_built_in: Final[set[type]] = {  # msgpack's own to begin with: it never asks for these
    type(None), bool, float, str, bytes, bytearray, memoryview, list, dict,
}  # fmt: skip


def define(code: Code, cls: type, pack_body: PackBody, unpack_body: UnpackBody) -> None:
    """Say how values of exactly this class are written down."""
    if code is not Code.REGISTERED:
        _built_in.add(cls)
    _packers[cls] = (int(code), pack_body)
    _unpackers[int(code)] = unpack_body


def define_family(
    code: Code, is_member: Callable[[Any], bool], pack_body: PackBody, unpack_body: UnpackBody
) -> None:
    """Say how values of all classes are written down for which `is_member`; the first wins."""
    _families.append((is_member, int(code), pack_body))
    _unpackers[int(code)] = unpack_body


def is_built_in(cls: type) -> bool:
    """Whether values of exactly this class are stored as they are."""
    return cls in _built_in


def pack(value: object) -> bytes:
    """Return msgpack bytes; equal values of one type give equal bytes (sets are sorted).

    Raises:
        UnsupportedValueError: a part of it has no encoding.
        ValueError, OverflowError, RecursionError: as msgpack and the packers do.
    """
    if _nesting.depth > _FREE_DEPTH:
        _check_nesting(value, _MAX_PLAIN_DEPTH)
    try:
        packer = _idle_packers.pop()
    except IndexError:  # all are in use: by extension values around this one, or by other threads
        packer = msgpack.Packer(default=_pack_extension, strict_types=True, buf_size=_BUFFER_BYTES)
    data = packer.pack(value)  # one that raises is dropped, with what is left in it
    if len(data) <= _KEPT_BYTES:
        _idle_packers.append(packer)
    return data


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that `pack` wrote; raises whatever the decoders raise on bad data."""
    return msgpack.unpackb(data, ext_hook=_unpack_extension, strict_map_key=False)


def pack_array(parts: Sequence[bytes]) -> bytes:
    """Return the msgpack array of parts that are packed already."""
    return _header(0x90, 0xDC, len(parts)) + b"".join(parts)


def pack_map(parts: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the msgpack map of keys and values that are packed already."""
    return _header(0x80, 0xDE, len(parts)) + b"".join(key + value for key, value in parts)


def _header(small: int, large: int, count: int) -> bytes:
    if count < 16:
        return bytes([small | count])
    if count < 1 << 16:
        return bytes([large]) + count.to_bytes(2, "big")
    return bytes([large + 1]) + count.to_bytes(4, "big")


def _pack_extension(value: Any) -> msgpack.ExtType:
    """The packer's `default` hook."""
    cls = cast("type[Any]", type(value))
    entry = _packers.get(cls)
    if entry is None:
        entry = _packers[cls] = _entry_for(cls)
    _nesting.depth += 1
    try:
        if _nesting.depth > MAX_DEPTH:
            raise UnsupportedValueError(TOO_DEEP)
        return msgpack.ExtType(entry[0], entry[1](value))
    finally:
        _nesting.depth -= 1


def _unpack_extension(code: int, data: bytes) -> Any:
    """The unpacker's `ext_hook`."""
    _nesting.depth += 1
    try:
        if _nesting.depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        return _unpackers[code](data)
    finally:
        _nesting.depth -= 1


def _entry_for(cls: type[Any]) -> tuple[int, PackBody]:
    for is_member, code, pack_body in _families:
        if is_member(cls):
            return code, pack_body
    return 0, _refuse


def _refuse(value: object) -> bytes:
    cls = type(value)
    raise UnsupportedValueError(
        f"a value of type {cls.__module__}.{cls.__qualname__} cannot be stored;"
        f" {_ADVICE.get(cls.__name__, _GENERAL_ADVICE)}"
    )


def _check_nesting(value: object, most: int) -> None:
    if isinstance(value, dict):
        children = cast("Iterable[object]", value.values())
    elif isinstance(value, list):
        children = cast("list[object]", value)
    else:
        return
    if most == 0:
        raise UnsupportedValueError(TOO_DEEP)
    for child in children:
        _check_nesting(child, most - 1)


_GENERAL_ADVICE: Final = (
    "pass plain data, a dataclass or a pydantic model, make the object inside the step, or"
    " register its class (fluvial.register_serializable)"
)
_ADVICE: Final = {
    "Pattern": "pass its text (`pattern.pattern`) and compile it where it is used",
    "generator": "pass a list of what it yields",
    "dict_keys": "pass a list of the keys",
    "dict_values": "pass a list of the values",
    "dict_items": "pass a list of the items",
    "mappingproxy": "pass dict(value)",
    "ChainMap": "pass dict(value)",
    "coroutine": "await it first",
    "function": "pass its name, and look the function up in the step",
    "type": "pass its name, and look the class up in the step",
}
