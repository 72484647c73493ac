"""How JSON's values become the plain types that an annotation asks for."""

from __future__ import annotations

import base64
import ipaddress
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Final, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from fluvial.durations import to_seconds
from fluvial.errors import SerializationError

_MISFITS = (TypeError, ValueError, ArithmeticError, LookupError, OSError)


def scalar_of(cls: Any) -> Callable[[Any, str], Any] | None:
    """Return the converter (value, its path) of a scalar type; None for other classes."""
    make = _SCALARS.get(cls)
    if make is None:
        return None

    def convert(value: Any, path: str) -> Any:
        # bool is an int to Python and not to anybody who writes JSON.
        if type(value) is cls or (type(value) is not bool and isinstance(value, cls)):
            return value
        try:
            return make(value)
        except _MISFITS:
            reason = f"is not a valid {cls.__name__}: {kind_of(value)}"
            raise SerializationError(path, reason) from None

    return convert


def key_of(cls: Any, text: str) -> Any:
    """Return an object's key, always a text in JSON, as a scalar that is none.

    Raises:
        ValueError: it is not one.
    """
    if cls is bool or cls is type(None):
        return {"true": True, "false": False}[text] if cls is bool else {"null": None}[text]
    return cls(text)


def kind_of(value: Any) -> str:
    """Say what a value is, as somebody who writes JSON calls it."""
    cls = cast("type[Any]", type(value))
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(
        cls, cls.__name__
    )


def _refuse(value: Any) -> Any:
    raise TypeError(kind_of(value))


def _number(value: Any) -> float:
    return float(value) if type(value) in {int, float} else _refuse(value)


def _integer(value: Any) -> int:
    return int(value) if type(value) is float and value.is_integer() else _refuse(value)


def _decimal(value: Any) -> Decimal:
    return Decimal(str(value)) if type(value) in {int, float, str} else _refuse(value)


def _fraction(value: Any) -> Fraction:
    """From 3 or "1/3"; not by Fraction's own reading, which "1e999999999" keeps busy for ever."""
    if type(value) is int:
        return Fraction(value)
    numerator, _, denominator = _text(value).partition("/")
    return Fraction(int(numerator), int(denominator or "1"))


def _complex(value: Any) -> complex:
    return complex(value) if type(value) in {int, float, str} else _refuse(value)


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _refuse(value)


def _of_text(make: Callable[[str], Any]) -> Callable[[Any], Any]:
    return lambda value: make(_text(value))


def _of_list(make: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: (
        make(cast("list[Any]", value)) if isinstance(value, list) else _refuse(value)
    )


def _of_object(make: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    return lambda value: (
        make(cast("dict[str, Any]", value)) if isinstance(value, dict) else _refuse(value)
    )


_SCALARS: Final[dict[Any, Callable[[Any], Any]]] = {
    str: _refuse,
    bool: _refuse,
    int: _integer,
    float: _number,
    complex: _complex,
    bytes: _bytes,
    bytearray: lambda value: bytearray(_bytes(value)),
    datetime: _of_text(datetime.fromisoformat),
    date: _of_text(date.fromisoformat),
    time: _of_text(time.fromisoformat),
    timedelta: lambda value: timedelta(seconds=to_seconds(value)),
    ZoneInfo: _of_text(ZoneInfo),
    Decimal: _decimal,
    Fraction: _fraction,
    UUID: _of_text(UUID),
    Path: _of_text(Path),
    PurePath: _of_text(PurePosixPath),
    PurePosixPath: _of_text(PurePosixPath),
    PureWindowsPath: _of_text(PureWindowsPath),
    ipaddress.IPv4Address: _of_text(ipaddress.IPv4Address),
    ipaddress.IPv6Address: _of_text(ipaddress.IPv6Address),
    ipaddress.IPv4Network: _of_text(ipaddress.IPv4Network),
    ipaddress.IPv6Network: _of_text(ipaddress.IPv6Network),
    ipaddress.IPv4Interface: _of_text(ipaddress.IPv4Interface),
    ipaddress.IPv6Interface: _of_text(ipaddress.IPv6Interface),
    range: _of_list(lambda bounds: range(*bounds)),
    set: _of_list(set),
    frozenset: _of_list(frozenset),
    tuple: _of_list(tuple),
    deque: _of_list(deque),
    OrderedDict: _of_object(OrderedDict),
    defaultdict: _of_object(lambda items: defaultdict(None, items)),
    Counter: _of_object(Counter),
    list: _refuse,
    dict: _refuse,
    type(None): _refuse,
}
