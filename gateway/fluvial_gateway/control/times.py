"""Spans and moments in requests: how they are described, and how they are read."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from fluvial.durations import MAX_SECONDS, Duration, to_seconds
from fluvial.errors import InvalidRequestError
from fluvial_gateway.control.schemas import Schema, text

_MAX_CHARACTERS: Final = 100

SPAN: Final[Schema] = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": MAX_SECONDS, "description": "seconds"},
        text('such as "1h 30m" (units w d h m s ms)', minLength=1, maxLength=_MAX_CHARACTERS),
    ]
}
MOMENT: Final = text(
    "RFC 3339, with an offset", format="date-time", minLength=1, maxLength=_MAX_CHARACTERS
)
MOMENT_OR_AGE: Final = text(
    'RFC 3339, with an offset, or how long ago, such as "2h"',
    minLength=1,
    maxLength=_MAX_CHARACTERS,
)


def span_ms(value: Duration, where: str) -> int:
    """Return a span in milliseconds.

    Raises:
        InvalidRequestError: it is not understood, or above a hundred years.
    """
    return round(to_seconds(value, where) * 1000)


def moment_ms(value: str, where: str) -> int:
    """Return a moment in Unix milliseconds, 0 if it is before 1970.

    Raises:
        InvalidRequestError: it is not understood, or has no offset.
    """
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise InvalidRequestError(
                f"{where}: {value!r} has no offset: write for example {value}Z for UTC"
            )
        return max(0, int(moment.timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(
            f"{where}: {value!r} is no time such as 2026-01-31T12:00:00Z"
        ) from error


def moment_or_age_ms(value: str, now_ms: int, where: str) -> int:
    """Return a moment in Unix milliseconds that is named, or lies so long before `now_ms`.

    Raises:
        InvalidRequestError: it is neither.
    """
    try:
        return max(0, now_ms - span_ms(value, where))
    except InvalidRequestError:
        return moment_ms(value, where)
