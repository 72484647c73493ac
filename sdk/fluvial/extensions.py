"""The msgpack extension types: how values that msgpack does not know are written down.

Classes (dataclasses, pydantic models, enums, named tuples) are recorded as `module:qualname` and
their state. On the way back a class is used only when it is already imported: data never imports
code. Where it is not, the value comes back as a plain dict (or value, or tuple), which a
function's annotation may then shape (`fluvial.shapes`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PosixPath, PurePosixPath
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack

from fluvial.failures import FailureRecord, describe, rebuild

_INTEGER, _DATETIME, _DATE, _TIME, _TIMEDELTA, _DECIMAL, _UUID, _SET, _FROZENSET = range(1, 10)
_TUPLE, _COMPLEX, _PATH, _PURE_PATH, _ENUM, _DATACLASS, _MODEL, _EXCEPTION = range(10, 18)
_NAMED_TUPLE = 18
_MAX_INTEGER_BYTES: Final = 64 * 1024
_FIELDS_SET: Final = "__pydantic_fields_set__"

Pack = Callable[[Any], msgpack.ExtType]

MAX_DEPTH: Final = 64  # of extension values: each is a call into C with some 50 KiB of stack
TOO_DEEP: Final = "is nested too deeply, or contains itself"


# msgpack takes lists in lists up to 511 deep, at some 350 bytes of C stack each: too much if it may
# do so at every level of extension values, so only the first few levels may.
_FREE_DEPTH: Final = 8
_MAX_PLAIN_DEPTH: Final = 32


class _Nesting(threading.local):
    depth = 0


_nesting = _Nesting()


class UnsupportedValueError(TypeError):
    """A value of a type that has no encoding; internal, becomes a SerializationError."""


def pack(value: object) -> bytes:
    """Return msgpack bytes; equal values of one type give equal bytes (sets are sorted)."""
    if _nesting.depth > _FREE_DEPTH:
        _check_nesting(value, _MAX_PLAIN_DEPTH)
    return msgpack.packb(value, default=pack_extension, strict_types=True)


def unpack(data: bytes | memoryview) -> Any:
    """Return the value that `pack` wrote; raises whatever the decoders raise on bad data."""
    return msgpack.unpackb(data, ext_hook=unpack_extension, strict_map_key=False)


def pack_extension(value: Any) -> msgpack.ExtType:
    """The packer's `default` hook.

    Raises:
        UnsupportedValueError: the type of `value` has no encoding, or it is nested too deeply.
    """
    cls = cast("type[Any]", type(value))
    packer = _PACKERS.get(cls)
    if packer is None:
        packer = _PACKERS[cls] = _packer_for(cls)
    _nesting.depth += 1
    try:
        if _nesting.depth > MAX_DEPTH:
            raise UnsupportedValueError(TOO_DEEP)
        return packer(value)
    finally:
        _nesting.depth -= 1


def unpack_extension(code: int, data: bytes) -> Any:
    """The unpacker's `ext_hook`; raises whatever the decoders raise on bad data."""
    _nesting.depth += 1
    try:
        if _nesting.depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        return _UNPACKERS[code](data)
    finally:
        _nesting.depth -= 1


def is_model(cls: Any) -> bool:
    """Whether `cls` is a pydantic model; pydantic is never imported for the question."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(cls, pydantic.BaseModel)


def _packer_for(cls: Any) -> Pack:
    if issubclass(cls, Enum):
        return _pack_enum
    if issubclass(cls, BaseException):
        return _pack_exception
    if dataclasses.is_dataclass(cls):
        return _pack_dataclass
    if is_model(cls):
        return _pack_model
    if hasattr(cls, "_fields") and issubclass(cls, tuple):
        return _pack_named_tuple
    return _refuse


def _refuse(value: object) -> msgpack.ExtType:
    cls = type(value)
    raise UnsupportedValueError(
        f"a value of type {cls.__module__}.{cls.__qualname__} cannot be stored; pass plain data,"
        " a dataclass or a pydantic model, or make the object inside the step"
    )


def _name(value: object) -> str:
    cls = type(value)
    return f"{cls.__module__}:{cls.__qualname__}"


def _class(name: str) -> type | None:
    """The class of that name if it is imported already, never importing it."""
    module, _, qualname = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        return None
    matches = found.__module__ == module and found.__qualname__ == qualname
    return found if matches else None


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


# Simple values


def _pack_integer(value: int) -> msgpack.ExtType:
    size = value.bit_length() // 8 + 1
    if size > _MAX_INTEGER_BYTES:
        raise UnsupportedValueError(f"an integer of {size} bytes is above {_MAX_INTEGER_BYTES}")
    return msgpack.ExtType(_INTEGER, value.to_bytes(size, "big", signed=True))


def _unpack_integer(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)


def _zoned(code: int) -> Pack:
    """A datetime or time: ISO text, fold, and the zone's name (an offset would lose the rules)."""

    def pack_zoned(value: datetime | time) -> msgpack.ExtType:
        zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        bare = value.replace(tzinfo=None) if zone else value
        return msgpack.ExtType(code, pack([bare.isoformat(), value.fold, zone]))

    return pack_zoned


def _unpack_datetime(data: bytes) -> datetime:
    text, fold, zone = unpack(data)
    value = datetime.fromisoformat(text).replace(fold=fold)
    return value.replace(tzinfo=ZoneInfo(zone)) if zone else value


def _unpack_time(data: bytes) -> time:
    text, fold, zone = unpack(data)
    value = time.fromisoformat(text).replace(fold=fold)
    return value.replace(tzinfo=ZoneInfo(zone)) if zone else value


def _pack_timedelta(value: timedelta) -> msgpack.ExtType:
    return msgpack.ExtType(_TIMEDELTA, pack([value.days, value.seconds, value.microseconds]))


def _pack_complex(value: complex) -> msgpack.ExtType:
    return msgpack.ExtType(_COMPLEX, pack([value.real, value.imag]))


def _text(code: int) -> Pack:
    return lambda value: msgpack.ExtType(code, str(value).encode())


def _path(code: int) -> Pack:
    return lambda value: msgpack.ExtType(code, os.fsencode(value))


# Collections


def _collection(code: int) -> Pack:
    return lambda value: msgpack.ExtType(code, pack(list(value)))


def _unordered(code: int) -> Pack:
    # Sorted by encoding: the order of a set of strings differs from process to process, and
    # "was this started with the same input?" compares encodings.
    return lambda value: msgpack.ExtType(code, pack(sorted(value, key=pack)))


# Classes


def _pack_enum(value: Enum) -> msgpack.ExtType:
    return msgpack.ExtType(_ENUM, pack([_name(value), value.value]))


def _unpack_enum(data: bytes) -> Any:
    name, value = unpack(data)
    cls = _class(name)
    return cls(value) if cls is not None and issubclass(cls, Enum) else value


def _pack_dataclass(value: Any) -> msgpack.ExtType:
    state = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return msgpack.ExtType(_DATACLASS, pack([_name(value), state]))


def _unpack_dataclass(data: bytes) -> Any:
    name, state = unpack(data)
    cls = _class(name)
    if cls is None or not dataclasses.is_dataclass(cls):
        return state
    # Not through __init__: the state was valid when it was written, and __post_init__ may not be
    # repeatable.
    value: Any = object.__new__(cls)
    for field in dataclasses.fields(cls):
        object.__setattr__(value, field.name, state[field.name])
    return value


def _pack_named_tuple(value: Any) -> msgpack.ExtType:
    return msgpack.ExtType(_NAMED_TUPLE, pack([_name(value), list(value)]))


def _unpack_named_tuple(data: bytes) -> Any:
    name, items = unpack(data)
    cls = _class(name)
    if cls is None or not issubclass(cls, tuple):
        return tuple(items)
    return cast("Any", cls)._make(items)


def _pack_model(value: Any) -> msgpack.ExtType:
    """The exact state; where a field's type has no encoding, JSON, if that loses nothing."""
    exact: dict[str, Any] = dict(value.__getstate__())
    exact[_FIELDS_SET] = sorted(exact[_FIELDS_SET])
    try:
        return msgpack.ExtType(_MODEL, pack([_name(value), "state", exact]))
    except UnsupportedValueError:
        text: str = value.model_dump_json(round_trip=True)
        cls: Any = cast("Any", type(value))
        if cls.model_validate_json(text) != value:
            raise
        return msgpack.ExtType(_MODEL, pack([_name(value), "json", text]))


def _unpack_model(data: bytes) -> Any:
    name, form, content = unpack(data)
    found = _class(name)
    cls = cast("Any", found) if found is not None and is_model(found) else None
    if form == "json":
        return json.loads(content) if cls is None else cls.model_validate_json(content)
    if cls is None:
        return content["__dict__"]
    content[_FIELDS_SET] = set(content[_FIELDS_SET])
    value = cls.__new__(cls)
    value.__setstate__(content)
    return value


def _pack_exception(value: BaseException) -> msgpack.ExtType:
    chain = [
        [
            record.name,
            _portable(list(record.arguments)),
            _portable(record.state),
            record.text,
            record.traceback,
            list(record.notes),
        ]
        for record in describe(value)
    ]
    return msgpack.ExtType(_EXCEPTION, pack(chain))


def _portable(value: Any) -> Any:
    """`value` itself if it can be encoded, else with `repr` for the parts that cannot."""
    if isinstance(value, dict):
        return {k: _portable(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_portable(item) for item in cast("list[Any]", value)]
    try:
        pack(value)
    except (UnsupportedValueError, ValueError, OverflowError, RecursionError):
        return f"<{type(value).__qualname__}>"
    return value


def _unpack_exception(data: bytes) -> BaseException:
    return rebuild(
        [
            FailureRecord(
                name=name,
                arguments=tuple(arguments),
                state=state,
                text=text,
                traceback=traceback,
                notes=tuple(notes),
            )
            for name, arguments, state, text, traceback, notes in unpack(data)
        ]
    )


_PACKERS: dict[type, Pack] = {
    int: _pack_integer,
    datetime: _zoned(_DATETIME),
    date: _text(_DATE),
    time: _zoned(_TIME),
    timedelta: _pack_timedelta,
    Decimal: _text(_DECIMAL),
    UUID: lambda value: msgpack.ExtType(_UUID, value.bytes),
    set: _unordered(_SET),
    frozenset: _unordered(_FROZENSET),
    tuple: _collection(_TUPLE),
    complex: _pack_complex,
    PosixPath: _path(_PATH),
    PurePosixPath: _path(_PURE_PATH),
}
_UNPACKERS: Final[dict[int, Callable[[bytes], Any]]] = {
    _INTEGER: _unpack_integer,
    _DATETIME: _unpack_datetime,
    _DATE: lambda data: date.fromisoformat(data.decode()),
    _TIME: _unpack_time,
    _TIMEDELTA: lambda data: timedelta(*unpack(data)),
    _DECIMAL: lambda data: Decimal(data.decode()),
    _UUID: lambda data: UUID(bytes=data),
    _SET: lambda data: set(unpack(data)),
    _FROZENSET: lambda data: frozenset(unpack(data)),
    _TUPLE: lambda data: tuple(unpack(data)),
    _COMPLEX: lambda data: complex(*unpack(data)),
    _PATH: lambda data: Path(os.fsdecode(data)),
    _PURE_PATH: lambda data: PurePosixPath(os.fsdecode(data)),
    _ENUM: _unpack_enum,
    _DATACLASS: _unpack_dataclass,
    _MODEL: _unpack_model,
    _EXCEPTION: _unpack_exception,
    _NAMED_TUPLE: _unpack_named_tuple,
}
