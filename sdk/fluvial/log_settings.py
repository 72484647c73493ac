"""The settings of app logs, as the supervisor hands them to its programs in their environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial.log_files import LogLimits

RETENTION: Final = "FLUVIAL_LOG_RETENTION"  # seconds
APP_BYTES: Final = "FLUVIAL_LOG_APP_BYTES"
TOTAL_BYTES: Final = "FLUVIAL_LOG_TOTAL_BYTES"


def log_limits(environment: Mapping[str, str]) -> LogLimits:
    """Return the limits that an environment names, the defaults for what it does not.

    Raises:
        InvalidRequestError: a variable is wrong; the message names it.
    """
    default = LogLimits()
    return LogLimits(
        retention_seconds=_number(environment, RETENTION, default.retention_seconds),
        app_bytes=int(_number(environment, APP_BYTES, default.app_bytes)),
        total_bytes=int(_number(environment, TOTAL_BYTES, default.total_bytes)),
    )


def log_environment(limits: LogLimits) -> dict[str, str]:
    """Return the variables from which `log_limits` makes the same limits."""
    return {
        RETENTION: f"{limits.retention_seconds:g}",
        APP_BYTES: str(limits.app_bytes),
        TOTAL_BYTES: str(limits.total_bytes),
    }


def _number(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise InvalidRequestError(f"{name} must be a number above 0, got {text!r}")
    return value
