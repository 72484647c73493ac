"""One attempt of a step: open its arguments, run the body, and have its end judged.

A cancellation from outside is not a verdict: it goes on to the caller.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from fluvial.attempt_scope import AttemptScope, current_attempt
from fluvial.error_payloads import decode_error
from fluvial.errors import DecryptionError, FatalError, SerializationError
from fluvial.invocations import StepRequest
from fluvial.registry import Registry
from fluvial.stream_writing import AttemptStreams
from fluvial.threads import Threads
from fluvial.unguarded import monotonic
from fluvial.verdicts import DEADLINE, Verdict, after_error, after_value, failed

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys
    from fluvial.steps import Step


class Attempts:
    """Executes attempts of an app's steps."""

    def __init__(
        self,
        registry: Registry,
        keys: AppKeys,
        threads: Threads,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._threads = threads
        self._clock = clock

    async def execute(self, request: StepRequest) -> Verdict:
        """Run one attempt. Only a cancellation from outside is raised."""
        step = self._registry.find_step(request.step)
        if step is None:
            missing = FatalError(f"this deployment has no step {request.step!r}")
            return failed(missing, "step_not_found")
        try:
            plaintext = self._keys.for_run(request.run_id).open(
                request.input, "step_input", request.id
            )
            args, kwargs = step.signature.decode_call(plaintext)
        except DecryptionError as error:
            return failed(error, error.code)
        except SerializationError as error:
            return failed(error, "invalid_arguments")
        if request.expires_ms and request.now_ms >= request.expires_ms:
            late = TimeoutError(f"the deadline of step {step.name} passed before this attempt")
            return failed(late, DEADLINE)
        return await self._judge(step, request, args, kwargs)

    async def _judge(
        self, step: Step[..., Any], request: StepRequest, args: list[Any], kwargs: dict[str, Any]
    ) -> Verdict:
        token = current_attempt.set(
            AttemptScope(request, functools.partial(self._previous_error, request))
        )
        started = self._clock()
        seconds, ending = _limit(request)
        limit = asyncio.timeout(seconds)
        try:
            async with limit, AttemptStreams(request, self._keys):
                value = await self._call(step, args, kwargs)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure, reason = cast("BaseException", error), "exception"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the body is user code; recorded
            failure, reason = error, ending if limit.expired() else "exception"
        else:
            return after_value(value)
        finally:
            current_attempt.reset(token)
        at_ms = request.now_ms + int((self._clock() - started) * 1000)
        return after_error(step.settings, request, failure, reason, at_ms=at_ms)

    def _previous_error(self, request: StepRequest) -> BaseException | None:
        history = request.history
        if history is None or not history.error:
            return None
        keys = self._keys.for_run(request.run_id)
        return decode_error(keys.open(history.error, "step_error", request.id, request.attempt - 1))

    async def _call(self, step: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.is_async:
            return await step.function(*args, **kwargs)
        return await self._threads.run(functools.partial(_run_body, step, args, kwargs))


def _limit(request: StepRequest) -> tuple[float | None, str]:
    """Return how many seconds an attempt may take, and what its failure is called then."""
    left_ms = request.expires_ms - request.now_ms
    if request.expires_ms and (not request.timeout_ms or left_ms <= request.timeout_ms):
        return left_ms / 1000, DEADLINE
    return request.timeout_ms / 1000 if request.timeout_ms else None, "timeout"


def _run_body(step: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return step.function(*args, **kwargs)
    except StopIteration as error:  # no future can carry it: whoever waits would wait for ever
        raise RuntimeError("the step raised StopIteration") from error
