"""One attempt of a step: run the body, and decide what its end means.

    returned a value            STEP_COMPLETED
    value cannot be encoded     STEP_FAILED, never repeated: the next attempt would fail alike
    FatalError, wrong call      STEP_FAILED, never repeated
    any other error, timeout    STEP_RETRYING with a delay; STEP_FAILED after the last attempt

A cancellation from outside is not a verdict: it goes on to the caller.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fluvial.codec import encode
from fluvial.context import Metadata, step_metadata
from fluvial.errors import DecryptionError, FatalError, RetryableError, SerializationError
from fluvial.events import EventType
from fluvial.execution import encode_error
from fluvial.invocations import StepRequest
from fluvial.registry import Registry
from fluvial.threads import Threads

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.steps import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an attempt came to, before it is sealed."""

    type: EventType
    kind: Literal["step_result", "step_error"]
    plaintext: bytes
    meta: dict[str, Any] = field(default_factory=dict[str, Any])


class Attempts:
    """Executes attempts of an app's steps."""

    def __init__(self, registry: Registry, keys: AppKeys, threads: Threads) -> None:
        self._registry = registry
        self._keys = keys
        self._threads = threads

    async def execute(self, request: StepRequest) -> Verdict:
        """Run one attempt. Only a cancellation from outside is raised."""
        step = self._registry.steps.get(request.step)
        if step is None:
            missing = FatalError(f"this deployment has no step {request.step!r}")
            return _failed(missing, "step_not_found")
        try:
            plaintext = self._keys.for_run(request.run_id).open(
                request.input, "step_input", request.id
            )
            args, kwargs = step.signature.decode_call(plaintext)
        except DecryptionError as error:
            return _failed(error, error.code)
        except SerializationError as error:
            return _failed(error, "invalid_arguments")
        return await self._judge(step, request, args, kwargs)

    async def _judge(
        self, step: Step[..., Any], request: StepRequest, args: list[Any], kwargs: dict[str, Any]
    ) -> Verdict:
        token = step_metadata.set(
            Metadata(
                run_id=request.run_id,
                workflow=request.workflow,
                step=step.name,
                step_id=request.id,
                attempt=request.attempt,
            )
        )
        deadline = asyncio.timeout(request.timeout_ms / 1000 if request.timeout_ms else None)
        try:
            async with deadline:
                value = await self._call(step, args, kwargs)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _after_error(step, request, error, "exception")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the body is user code; recorded
            reason = "timeout" if deadline.expired() else "exception"
            return _after_error(step, request, error, reason)
        finally:
            step_metadata.reset(token)
        return _after_value(value)

    async def _call(self, step: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.is_async:
            return await step.function(*args, **kwargs)
        return await self._threads.run(functools.partial(_run_body, step, args, kwargs))


def _run_body(step: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return step.function(*args, **kwargs)
    except StopIteration as error:  # no future can carry it: whoever waits would wait for ever
        raise RuntimeError("the step raised StopIteration") from error


def _after_value(value: Any) -> Verdict:
    try:
        plaintext = encode(value, "result")
    except SerializationError as error:
        return _failed(error, error.code)
    return Verdict(type=EventType.STEP_COMPLETED, kind="step_result", plaintext=plaintext)


def _after_error(
    step: Step[..., Any], request: StepRequest, error: BaseException, reason: str
) -> Verdict:
    if isinstance(error, FatalError):
        return _failed(error, error.code)
    if request.attempt > step.retries:
        return _failed(error, reason)
    if isinstance(error, RetryableError):
        delay_seconds = error.retry_after_seconds
    else:
        delay_seconds = step.backoff.delay_seconds(request.attempt)
    return Verdict(
        type=EventType.STEP_RETRYING,
        kind="step_error",
        plaintext=encode_error(error),
        meta={"reason": reason, "delay_ms": round(delay_seconds * 1000)},
    )


def _failed(error: BaseException, reason: str) -> Verdict:
    return Verdict(
        type=EventType.STEP_FAILED,
        kind="step_error",
        plaintext=encode_error(error),
        meta={"reason": reason},
    )
