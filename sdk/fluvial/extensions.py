"""The table of extension types: all that can be stored beyond what msgpack knows.

    int beyond 64 bits, complex, Decimal, Fraction, UUID,        simple_values
        datetime, date, time, timedelta, ZoneInfo, timezone,
        Path, PurePosixPath, PureWindowsPath, ipaddress
    tuple, set, frozenset, deque, range, OrderedDict,            containers
        defaultdict, Counter
    enums, named tuples, dataclasses, pydantic models            class_values
    exceptions                                                   failures
    registered classes                                           serializers

The order of the families counts: an exception may be a dataclass too, and what derives from a
registered class is nothing else.
"""

from __future__ import annotations

from fluvial.class_values import define_class_values
from fluvial.containers import define_containers
from fluvial.failures import define_failures
from fluvial.packing import (
    TOO_DEEP,
    UnreadableValueError,
    UnsupportedValueError,
    pack,
    unpack,
)
from fluvial.serializers import define_registered, plain_data_of
from fluvial.simple_values import define_simple_values

__all__ = [
    "TOO_DEEP",
    "UnreadableValueError",
    "UnsupportedValueError",
    "pack",
    "plain_data_of",
    "unpack",
]

define_simple_values()
define_containers()
define_failures()
define_registered()
define_class_values()
