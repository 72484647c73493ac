"""What `@step(...)` may be told, checked once when the function is decorated."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

from fluvial.durations import Duration, to_seconds
from fluvial.errors import InvalidRequestError

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[Any], bool]
"""Which errors are worth another attempt: a class, several, or a function that says so."""

Exhausted = Literal["fail", "pause"]
"""What follows when the last attempt has failed: the step fails, or the run waits for somebody."""

DEFAULT_RETRIES: Final = 3
MAX_RETRIES: Final = 1000


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before each retry: `first`, then `factor` times longer, at most `most`.

    The wait lies anywhere between half and all of that, so that steps that failed together do not
    come back together.
    """

    first: Duration = 1.0
    factor: float = 2.0
    most: Duration = 300.0

    def __post_init__(self) -> None:
        if to_seconds(self.first, "backoff") > to_seconds(self.most, "backoff"):
            raise InvalidRequestError(f"backoff: first ({self.first!r}) is above most")
        if not 1 <= self.factor <= 100:
            raise InvalidRequestError(f"backoff: factor must be 1 to 100, got {self.factor!r}")

    def delay_seconds(self, attempt: int, whose: str) -> float:
        """Return the wait after the failed attempt number `attempt`.

        Where in its range it lies depends on `whose` it is, a text that no other step has, and on
        nothing else: a test that is run again waits as long.
        """
        most = to_seconds(self.most)
        # The exponent is bounded: 100 ** 1000 is not a float.
        full = min(most, to_seconds(self.first) * self.factor ** min(attempt - 1, 60))
        digest = hashlib.sha256(f"{whose} {attempt}".encode()).digest()
        return full * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """The arguments of `@step`, checked."""

    name: str | None
    retries: int
    backoff: Backoff
    retry_on: Callable[[BaseException], bool] | None  # None: every error
    timeout_ms: int  # 0: none
    deadline_ms: int  # 0: none
    heartbeat_ms: int  # 0: none
    exhausted: Exhausted
    at_most_once: bool
    isolated: bool

    def rules(self) -> dict[str, Any]:
        """Return what the owner of the run must know, as it stands in STEP_SCHEDULED."""
        rules: dict[str, Any] = {"timeout_ms": self.timeout_ms}
        if self.deadline_ms:
            rules["deadline_ms"] = self.deadline_ms
        if self.at_most_once:
            rules["once"] = True
        if self.heartbeat_ms:
            rules["heartbeat_ms"] = self.heartbeat_ms
        if self.isolated:  # when its process is gone, nobody else knows what to do next
            rules["isolated"] = {
                "retries": self.retries,
                "first_ms": round(to_seconds(self.backoff.first) * 1000),
                "pauses": self.exhausted == "pause",
            }
        return rules


def checked_settings(
    *,
    name: str | None,
    retries: int | None,
    backoff: Backoff | Duration | None,
    retry_on: RetryOn | None,
    timeout: Duration | None,
    deadline: Duration | None,
    heartbeat: Duration | None,
    exhausted: Exhausted,
    at_most_once: bool,
    isolated: bool,
) -> StepSettings:
    """Return the settings that a user's arguments mean.

    Raises:
        InvalidRequestError: one of them is wrong; the message names it.
    """
    return StepSettings(
        name=name,
        retries=_checked_retries(retries, at_most_once),
        backoff=_checked_backoff(backoff),
        retry_on=None if retry_on is None else _predicate(retry_on),
        timeout_ms=_checked_milliseconds("timeout", timeout),
        deadline_ms=_checked_milliseconds("deadline", deadline),
        heartbeat_ms=_checked_milliseconds("heartbeat", heartbeat),
        exhausted=_checked_exhausted(exhausted),
        at_most_once=at_most_once,
        isolated=isolated,
    )


def _checked_retries(retries: int | None, at_most_once: bool) -> int:
    if retries is None:
        return 0 if at_most_once else DEFAULT_RETRIES
    if not 0 <= retries <= MAX_RETRIES:
        raise InvalidRequestError(f"retries must be 0 to {MAX_RETRIES}, got {retries!r}")
    return retries


def _checked_exhausted(exhausted: Exhausted) -> Exhausted:
    if exhausted not in get_args(Exhausted):
        raise InvalidRequestError(f'exhausted must be "fail" or "pause", got {exhausted!r}')
    return exhausted


def _checked_backoff(backoff: Backoff | Duration | None) -> Backoff:
    if backoff is None:
        return Backoff()
    if isinstance(backoff, Backoff):
        return backoff
    first = to_seconds(backoff, "backoff")
    return Backoff(first, most=max(first, 300.0))


def _predicate(retry_on: Any) -> Callable[[BaseException], bool]:
    classes = cast("tuple[Any, ...]", retry_on if isinstance(retry_on, tuple) else (retry_on,))
    if all(isinstance(cls, type) and issubclass(cls, BaseException) for cls in classes):
        return lambda error: isinstance(error, classes)
    if isinstance(retry_on, (tuple, type)) or not callable(retry_on):
        raise InvalidRequestError(
            "retry_on must be an exception class, a tuple of them, or a function"
            f" (error) -> bool, got {retry_on!r}"
        )
    if inspect.iscoroutinefunction(retry_on):
        raise InvalidRequestError(
            f"retry_on must be a plain function, and {retry_on.__qualname__} is async: it could"
            " not be awaited where the error is judged"
        )
    return cast("Callable[[BaseException], bool]", retry_on)


def _checked_milliseconds(what: str, duration: Duration | None) -> int:
    if duration is None:
        return 0
    milliseconds = round(to_seconds(duration, what) * 1000)
    if milliseconds < 1:
        raise InvalidRequestError(f"{what} must be at least 1 ms, got {duration!r}")
    return milliseconds
