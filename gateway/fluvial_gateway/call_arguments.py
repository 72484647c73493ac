"""The arguments of calls, checked: an instance runs user code, so they may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from fluvial.errors import InvalidRequestError
from fluvial_gateway.problems import ProblemError

# Below the deadline that the link sets on every call (`link_calls.CALL_SECONDS`).
MAX_WAIT_MS: Final = 60_000
MAX_NAME_CHARACTERS: Final = 512
MAX_INPUT_BYTES: Final = 16 * 1024 * 1024  # half of what a store takes for one value


def text_of(
    arguments: Mapping[str, Any], name: str, most: int, *, default: str | None = None
) -> str:
    """Return a text; with `default`, one that may be left out or empty."""
    value = arguments.get(name, default)
    if value is None:
        value = default  # an instance may send nil for what it leaves out
    if not isinstance(value, str) or len(value) > most or (not value and default is None):
        raise InvalidRequestError(f"{name}: expected text of at most {most} characters")
    return value


def bytes_of(arguments: Mapping[str, Any], name: str, most: int) -> bytes:
    """Return bytes; none where they are left out."""
    value = arguments.get(name) or b""
    if not isinstance(value, bytes) or len(value) > most:
        raise InvalidRequestError(f"{name}: expected at most {most} bytes")
    return value


def natural_of(arguments: Mapping[str, Any], name: str) -> int:
    """Return a number that is not negative; 0 where it is left out."""
    value = arguments.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidRequestError(f"{name}: expected an integer that is not negative")
    return value


def wait_seconds_of(arguments: Mapping[str, Any]) -> float:
    """Return how long a call may wait."""
    return min(natural_of(arguments, "wait_ms"), MAX_WAIT_MS) / 1000


def check_size(what: str, body: bytes, most: int) -> None:
    """Refuse a body above the limit."""
    if len(body) > most:
        raise ProblemError("too_large", f"{what} has {len(body)} bytes, the limit is {most}")
