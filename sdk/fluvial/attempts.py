"""One attempt of a step: open its arguments, run the body, and have its end judged.

A cancellation from outside is not a verdict: it goes on to the caller.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from fluvial.attempt_scope import AttemptScope, current_attempt
from fluvial.codec import decode
from fluvial.context import open_pulse
from fluvial.error_payloads import decode_error
from fluvial.errors import (
    DecryptionError,
    FatalError,
    KeyDestroyedError,
    KeyMissingError,
    SerializationError,
)
from fluvial.events import EventType
from fluvial.invocations import StepRequest
from fluvial.pulses import Pulse
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
        """Run one attempt. A cancellation from outside is raised.

        Raises:
            KeyMissingError, KeyDestroyedError: nothing was run; this is no verdict on the step.
        """
        step = self._registry.find_step(request.step)
        if step is None:
            missing = FatalError(f"this deployment has no step {request.step!r}")
            return failed(missing, "step_not_found")
        try:
            plaintext = self._keys.for_run(request.run_id).open(
                request.input, "step_input", request.id
            )
            args, kwargs = step.signature.decode_call(plaintext)
        except (KeyMissingError, KeyDestroyedError):
            raise
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
        scope = AttemptScope(request, self, asyncio.get_running_loop())
        token = current_attempt.set(scope)
        started = self._clock()
        seconds, ending = _limit(request)
        limit = asyncio.timeout(seconds)
        silence = None
        if step.settings.heartbeat_ms:
            silence = _Silence(scope.loop, limit)
            scope.pulse = self._pulse(scope, step.settings.heartbeat_ms, silence.end)
        try:
            async with limit, AttemptStreams(request, self._keys):
                value = await self._call(step, args, kwargs)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            failure, reason = cast("BaseException", error), "exception"
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the body is user code; recorded
            if silence is not None and silence.has_ended:
                ending = "heartbeat"
            failure, reason = error, ending if limit.expired() else "exception"
        else:
            return after_value(value)
        finally:
            current_attempt.reset(token)
            if scope.pulse is not None:
                scope.pulse.stop()
        at_ms = request.now_ms + int((self._clock() - started) * 1000)
        verdict = after_error(step.settings, request, failure, reason, at_ms=at_ms)
        if scope.pulse is not None and verdict.type is EventType.STEP_RETRYING:
            progress = scope.pulse.sealed_progress()
            if progress:
                verdict.meta["progress"] = progress
        return verdict

    # ---- what bodies ask for ----

    def previous_error(self, request: StepRequest) -> BaseException | None:
        """Return what the attempt before failed with."""
        history = request.history
        if history is None or not history.error:
            return None
        keys = self._keys.for_run(request.run_id)
        return decode_error(keys.open(history.error, "step_error", request.id, request.attempt - 1))

    def previous_progress(self, request: StepRequest) -> Any:
        """Return what the execution before has reported last."""
        history = request.history
        if history is None or not history.progress:
            return None
        keys = self._keys.for_run(request.run_id)
        return decode(keys.open(history.progress, "progress", request.id))

    def open_pulse(self, scope: AttemptScope) -> Pulse:
        """Return the heartbeats of an attempt that nobody watches."""
        return self._pulse(scope, 0, _nothing)

    def _pulse(
        self, scope: AttemptScope, heartbeat_ms: int, on_silence: Callable[[], None]
    ) -> Pulse:
        keys, step_id = self._keys.for_run(scope.request.run_id), scope.request.id
        return Pulse(
            scope.loop,
            heartbeat_ms=heartbeat_ms,
            seal=lambda plaintext: keys.seal(plaintext, "progress", step_id),
            report=open_pulse(),
            on_silence=on_silence,
        )

    async def _call(self, step: Step[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
        if step.is_async:
            return await step.function(*args, **kwargs)
        return await self._threads.run(functools.partial(_run_body, step, args, kwargs))


class _Silence:
    """Ends an attempt whose body does not beat."""

    __slots__ = ("_limit", "_loop", "has_ended")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: asyncio.Timeout) -> None:
        self._loop = loop
        self._limit = limit
        self.has_ended = False

    def end(self) -> None:
        if not self._limit.expired():
            self.has_ended = True
            self._limit.reschedule(self._loop.time())


def _nothing() -> None: ...


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
