"""The invoker's configuration, read once from its environment."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial.log_files import LogLimits
from fluvial.log_settings import log_limits
from fluvial.sizes import parse_bytes

DEFAULT_IDLE_SECONDS: Final = 300.0
DEFAULT_GRACE_SECONDS: Final = 10.0
DEFAULT_HOME: Final = "~/.fluvial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the invoker is told by whoever starts it."""

    home: Path
    run_dir: Path
    listener_fd: int
    idle_seconds: float = DEFAULT_IDLE_SECONDS
    grace_seconds: float = DEFAULT_GRACE_SECONDS
    log_limits: LogLimits = field(default_factory=LogLimits)
    snapshot_bytes: int | None = None  # that snapshots may take in all; None: an eighth of memory
    kms_command: tuple[str, ...] = ()  # program and arguments; (): keys are not wrapped

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Config:
        """Return the configuration.

        Raises:
            InvalidRequestError: a variable is missing or wrong; the message names it.
        """
        home = Path(environment.get("FLUVIAL_HOME", DEFAULT_HOME)).expanduser()
        run_dir = environment.get("FLUVIAL_RUN_DIR")
        return cls(
            home=home,
            run_dir=Path(run_dir) if run_dir else home / "run",
            listener_fd=int(_number(environment, "FLUVIAL_INVOKER_FD", None)),
            idle_seconds=_number(environment, "FLUVIAL_INVOKER_IDLE", DEFAULT_IDLE_SECONDS),
            grace_seconds=_number(environment, "FLUVIAL_INVOKER_GRACE", DEFAULT_GRACE_SECONDS),
            log_limits=log_limits(environment),
            snapshot_bytes=_size(environment, "FLUVIAL_SNAPSHOT_MEMORY"),
            kms_command=_command(environment, "FLUVIAL_KMS_COMMAND"),
        )


def _size(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise InvalidRequestError(f"{name} {error}") from None


def _command(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(environment.get(name, "")))
    except ValueError as error:
        raise InvalidRequestError(f"{name} is not a command line: {error}") from error


def _number(environment: Mapping[str, str], name: str, default: float | None) -> float:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise InvalidRequestError(f"{name} must be a number that is not negative, got {text!r}")
    return value
