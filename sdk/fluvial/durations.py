"""Durations as people write them: `"1h 30m"`, `90`, `timedelta(minutes=90)`."""

from __future__ import annotations

from fluvial.errors import InvalidRequestError
from fluvial.spans import MAX_SECONDS, Duration, parse_seconds

__all__ = ["MAX_SECONDS", "Duration", "to_seconds"]


def to_seconds(duration: Duration, what: str = "duration") -> float:
    """Return a duration in seconds.

    Raises:
        InvalidRequestError: it is negative, not finite, above a hundred years or not understood;
            the message names `what`.
    """
    try:
        return parse_seconds(duration, what)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
