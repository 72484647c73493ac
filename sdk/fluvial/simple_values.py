"""How numbers, times, zones, paths and addresses are written down."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from fluvial.packing import Code, UnsupportedValueError, define, pack, unpack

_MAX_INTEGER_BYTES: Final = 64 * 1024
_ADDRESSES: Final[dict[str, Callable[[str], Any]]] = {
    cls.__name__: cls
    for cls in (
        ipaddress.IPv4Address,
        ipaddress.IPv6Address,
        ipaddress.IPv4Network,
        ipaddress.IPv6Network,
        ipaddress.IPv4Interface,
        ipaddress.IPv6Interface,
    )
}


def define_simple_values() -> None:
    """Add these types to the table."""
    define(Code.INTEGER, int, _pack_integer, lambda data: int.from_bytes(data, "big", signed=True))
    define(Code.COMPLEX, complex, lambda value: pack([value.real, value.imag]), _unpack_complex)
    define(Code.DECIMAL, Decimal, _text, lambda data: Decimal(data.decode()))
    define(Code.FRACTION, Fraction, _pack_fraction, _unpack_fraction)
    define(Code.UUID, UUID, lambda value: value.bytes, lambda data: UUID(bytes=data))
    define(Code.DATETIME, datetime, _pack_zoned, _unpack_datetime)
    define(Code.DATE, date, _text, lambda data: date.fromisoformat(data.decode()))
    define(Code.TIME, time, _pack_zoned, _unpack_time)
    define(Code.TIMEDELTA, timedelta, _pack_timedelta, lambda data: timedelta(*unpack(data)))
    define(Code.ZONE, ZoneInfo, _pack_zone, lambda data: ZoneInfo(data.decode()))
    define(Code.FIXED_ZONE, timezone, _pack_fixed_zone, _unpack_fixed_zone)
    define(Code.PATH, PosixPath, os.fsencode, lambda data: Path(os.fsdecode(data)))
    define(Code.PURE_PATH, PurePosixPath, os.fsencode, lambda d: PurePosixPath(os.fsdecode(d)))
    define(Code.WINDOWS_PATH, PureWindowsPath, _text, lambda d: PureWindowsPath(d.decode()))
    for cls in _ADDRESSES.values():
        define(Code.ADDRESS, cls, _pack_address, _unpack_address)  # type: ignore[arg-type] # classes


def _text(value: object) -> bytes:
    return str(value).encode()


def _pack_integer(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > _MAX_INTEGER_BYTES:
        raise UnsupportedValueError(f"an integer of {size} bytes is above {_MAX_INTEGER_BYTES}")
    return value.to_bytes(size, "big", signed=True)


def _unpack_complex(data: bytes) -> complex:
    real, imaginary = unpack(data)
    return complex(real, imaginary)


def _pack_fraction(value: Fraction) -> bytes:
    return pack([value.numerator, value.denominator])


def _unpack_fraction(data: bytes) -> Fraction:
    numerator, denominator = unpack(data)  # never one argument: it may be the text "1e999999999"
    return Fraction(numerator, denominator)


def _pack_zoned(value: datetime | time) -> bytes:
    """ISO text, fold, and the zone where an offset would lose something: its rules, its name."""
    zone = value.tzinfo
    if zone is None or zone is UTC:
        return pack([value.isoformat(), value.fold, None])
    if isinstance(zone, ZoneInfo):
        return pack([value.replace(tzinfo=None).isoformat(), value.fold, _zone_key(zone)])
    if isinstance(zone, timezone) and len(_arguments_of(zone)) == 2:
        return pack([value.replace(tzinfo=None).isoformat(), value.fold, zone])
    if value.utcoffset() is None:
        raise UnsupportedValueError(f"has the time zone {zone!r}, which cannot be stored")
    return pack([value.isoformat(), value.fold, None])  # a zone of another library: its offset


def _unpack_datetime(data: bytes) -> datetime:
    text, fold, zone = unpack(data)
    value = datetime.fromisoformat(text)
    if fold:
        value = value.replace(fold=fold)
    return value.replace(tzinfo=_zone(zone)) if zone else value


def _unpack_time(data: bytes) -> time:
    text, fold, zone = unpack(data)
    value = time.fromisoformat(text).replace(fold=fold)
    return value.replace(tzinfo=_zone(zone)) if zone else value


def _zone(stored: Any) -> tzinfo:
    return stored if isinstance(stored, timezone) else ZoneInfo(stored)


def _pack_timedelta(value: timedelta) -> bytes:
    return pack([value.days, value.seconds, value.microseconds])


def _pack_zone(value: ZoneInfo) -> bytes:
    return _zone_key(value).encode()


def _zone_key(zone: ZoneInfo) -> str:
    key: Any = zone.key
    if not isinstance(key, str):
        raise UnsupportedValueError("a ZoneInfo without a name (from a file) cannot be stored")
    return key


def _pack_fixed_zone(value: timezone) -> bytes:
    return pack(list(_arguments_of(value)))


def _unpack_fixed_zone(data: bytes) -> timezone:
    return timezone(*unpack(data))


def _arguments_of(zone: timezone) -> tuple[Any, ...]:
    """(offset,) or (offset, name): the only way to learn whether it was given a name."""
    arguments: tuple[Any, ...] = cast("Any", zone).__getinitargs__()  # pickle asks it as well
    return arguments


def _pack_address(value: object) -> bytes:
    return pack([type(value).__name__, str(value)])


def _unpack_address(data: bytes) -> Any:
    kind, text = unpack(data)
    if not isinstance(text, str):
        raise TypeError("an address is a text")  # a number would be taken as well
    return _ADDRESSES[kind](text)
