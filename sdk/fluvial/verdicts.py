"""What the end of an attempt means.

returned a value            STEP_COMPLETED
value cannot be encoded     STEP_FAILED, never repeated: the next attempt would fail alike
FatalError, wrong call      STEP_FAILED, never repeated
not wanted by `retry_on`    STEP_FAILED, never repeated
any other error, timeout    STEP_RETRYING with a delay; STEP_FAILED after the last attempt
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fluvial.codec import encode
from fluvial.error_payloads import encode_error
from fluvial.errors import FatalError, RetryableError, SerializationError
from fluvial.events import EventType
from fluvial.invocations import StepRequest
from fluvial.step_settings import StepSettings

DEADLINE = "deadline"
_NOT_RETRIED = "not_retried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an attempt came to, before it is sealed."""

    type: EventType
    kind: Literal["step_result", "step_error"]
    plaintext: bytes
    meta: dict[str, Any] = field(default_factory=dict[str, Any])


def after_value(value: Any) -> Verdict:
    """Judge an attempt that has returned `value`."""
    try:
        plaintext = encode(value, "result")
    except SerializationError as error:
        return failed(error, error.code)
    return Verdict(type=EventType.STEP_COMPLETED, kind="step_result", plaintext=plaintext)


def after_error(
    settings: StepSettings,
    request: StepRequest,
    error: BaseException,
    reason: str,
    *,
    at_ms: int,
) -> Verdict:
    """Judge an attempt that has raised `error` at `at_ms`; `reason` says how, as a code."""
    if isinstance(error, FatalError):
        return failed(error, error.code)
    if reason == DEADLINE:
        return failed(error, reason)
    refusal = _refusal(settings, error)
    if refusal is not None:
        return failed(refusal, _NOT_RETRIED)
    if request.spent > settings.retries:
        is_paused = settings.exhausted == "pause"
        return _retrying(error, reason, 0, exhausted=True) if is_paused else failed(error, reason)
    if isinstance(error, RetryableError):
        delay_seconds = error.retry_after_seconds
    else:
        whose = f"{request.run_id}-{request.id}"
        delay_seconds = settings.backoff.delay_seconds(request.spent, whose)
    delay_ms = round(delay_seconds * 1000)
    if request.expires_ms and at_ms + delay_ms >= request.expires_ms:
        return failed(error, DEADLINE)
    return _retrying(error, reason, delay_ms)


def _retrying(
    error: BaseException, reason: str, delay_ms: int, *, exhausted: bool = False
) -> Verdict:
    meta: dict[str, Any] = {"reason": reason, "delay_ms": delay_ms}
    if exhausted:
        meta["exhausted"] = True
    return Verdict(
        type=EventType.STEP_RETRYING, kind="step_error", plaintext=encode_error(error), meta=meta
    )


def failed(error: BaseException, reason: str) -> Verdict:
    """Return the end of a step that is not tried again."""
    return Verdict(
        type=EventType.STEP_FAILED,
        kind="step_error",
        plaintext=encode_error(error),
        meta={"reason": reason},
    )


def _refusal(settings: StepSettings, error: BaseException) -> BaseException | None:
    """Return the error to fail with if `retry_on` does not want it tried again."""
    if settings.retry_on is None or isinstance(error, RetryableError):
        return None
    try:
        return None if settings.retry_on(error) else error
    except Exception as broken:  # noqa: BLE001 - the predicate is user code
        broken.__cause__ = error
        return broken
