"""One live run: its suspended coroutine, fed with inputs one at a time.

After each input the loop runs until idle and the journal settles; so a live run and a replay see
the same events in the same order, however the dispatcher batched them.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Literal

from fluvial.children import ChildOperation
from fluvial.codec import encode
from fluvial.continuing import Continuation
from fluvial.error_payloads import decode_error, describe_error, encode_error
from fluvial.errors import (
    FluvialError,
    NondeterminismError,
    SerializationError,
    StepCrashedError,
    StepFailedError,
    StepInterruptedError,
)
from fluvial.events import EventType, Fields
from fluvial.hook_operations import HookOperation, refuse_late
from fluvial.ids import continued_run_id
from fluvial.journal import Journal, Operation, TurnTooLargeError
from fluvial.loop import TimerOperation, new_loop
from fluvial.scope import RunScope
from fluvial.signatures import decode_result
from fluvial.steps import StepOperation

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys
    from fluvial.workflows import Workflow

BASE_BYTES: Final = (
    7680  # measured: resident memory of a run that sleeps (loop, task, frames, keys)
)
_OPERATION_BYTES: Final = 1024
_RECENT: Final = 0.9  # how much of the payloads seen before is assumed to be held still

_RUN_STARTED: Final = int(EventType.RUN_STARTED)  # plain numbers: these are hot
_CANCEL_REQUESTED: Final = int(EventType.CANCEL_REQUESTED)
_STEP_COMPLETED: Final = int(EventType.STEP_COMPLETED)
_HOOK_RECEIVED: Final = int(EventType.HOOK_RECEIVED)

Input = Fields
"""An event that the workflow consumes."""


class Execution:
    """A workflow's coroutine and what it waits for. Synchronous; never raises user errors."""

    __slots__ = (
        "_keys",
        "_payload_bytes",
        "_task",
        "_workflow",
        "is_over",
        "journal",
        "loop",
        "turn_id",
    )

    def __init__(
        self,
        workflow: Workflow[..., Any],
        scope: RunScope,
        keys: RunKeys,
        journal: Journal,
    ) -> None:
        self._workflow = workflow
        self._keys = keys
        self.journal = journal
        self.loop = new_loop(journal, scope)
        self._task: asyncio.Task[Any] | None = None
        self._payload_bytes = 0.0
        self.is_over = False
        self.turn_id = b""

    @property
    def held_bytes(self) -> int:
        """An estimate of the memory that the live run takes."""
        operations = self.journal.open_operations * _OPERATION_BYTES
        return BASE_BYTES + operations + int(self._payload_bytes)

    @property
    def coroutine(self) -> Any:
        """The workflow's coroutine; None before it has started."""
        return None if self._task is None else self._task.get_coro()

    def feed(self, given: Input, plaintext: bytes | None = None) -> None:
        """Let the workflow consume one input; with `plaintext`, nothing need be decrypted.

        Call it inside `loop.running()`.

        Raises:
            NondeterminismError: the workflow does not ask for what the log recorded.
            DecryptionError: the payload was altered, or its key is gone.
        """
        event_type, at_ms, operation_id, payload, _ = given
        self._payload_bytes = self._payload_bytes * _RECENT + len(payload)
        self.loop.advance(at_ms / 1000)
        if event_type == _RUN_STARTED:
            self._start(payload)
        elif event_type == _CANCEL_REQUESTED:
            if self._task is not None:
                self._task.cancel()
        else:
            operation = self.journal.find(operation_id)
            if operation is not None:
                self._deliver(operation, given, plaintext)
            elif event_type == _HOOK_RECEIVED:
                refuse_late(self.journal, operation_id, given[4])
            else:
                return  # given up, or answered already: a late result changes nothing
        self._go_on()

    def close(self) -> None:
        """Give the coroutine up. Its `finally` blocks run, and may ask for nothing."""
        if not self.journal.is_closed:
            self.journal.close()
            self.loop.discard()

    def __del__(self) -> None:
        # Left to the garbage collector, its `finally` blocks would run as if outside a workflow.
        self.close()

    def _start(self, payload: bytes) -> None:
        try:
            plaintext = self._keys.open(payload, "input")
            args, kwargs = self._workflow.signature.decode_call(plaintext)
        except SerializationError as error:
            self._fail(error, "invalid_input")
            return
        coroutine = self._workflow.function(*args, **kwargs)
        # The context of the turn that starts or replays it: output is attributed to its run.
        self._task = self.loop.create_task(coroutine, name="workflow", context=copy_context())
        self._task.add_done_callback(self.loop.halt)

    def _deliver(self, operation: Operation, given: Input, plaintext: bytes | None) -> None:
        event_type = given[0]
        if isinstance(operation, StepOperation):
            self.journal.finish(operation)
            if event_type == _STEP_COMPLETED:
                self._complete_step(operation, given, plaintext)
                return
            if event_type == EventType.STEP_FAILED:
                self._fail_step(operation, given, plaintext)
                return
        elif isinstance(operation, TimerOperation) and event_type == EventType.TIMER_FIRED:
            self.journal.finish(operation)
            self.loop.fire(operation, early=bool(given[4].get("early")))
            return
        elif isinstance(operation, HookOperation):
            if event_type == _HOOK_RECEIVED:
                plaintext = self._keys.open(given[3], "hook", operation.token)
                operation.receive(plaintext, given[4])
                return
            if event_type == EventType.HOOK_CONFLICT:
                self.journal.finish(operation)
                operation.lose(given[4])
                return
        elif isinstance(operation, ChildOperation):
            self.journal.finish(operation)
            if event_type == EventType.CHILD_COMPLETED:
                operation.complete(self._keys, given[3], given[4])
                return
            if event_type == EventType.CHILD_FAILED:
                operation.end_badly(self._keys, given[3], given[4])
                return
        raise NondeterminismError(
            f"the log has {EventType(event_type).name} for operation {operation.id}, which is a"
            f" {type(operation).__name__} now"
        )

    def _complete_step(
        self, operation: StepOperation, given: Input, plaintext: bytes | None
    ) -> None:
        future = operation.future
        if future is None or future.done():
            return
        data = (
            self._keys.open(given[3], "step_result", given[2]) if plaintext is None else plaintext
        )
        try:
            future.set_result(decode_result(data, operation.step.signature.result))
        except SerializationError as error:
            future.set_exception(error)

    def _fail_step(self, operation: StepOperation, given: Input, plaintext: bytes | None) -> None:
        future = operation.future
        if future is None or future.done():
            return
        _, _, step_id, payload, meta = given
        attempt = int(meta.get("attempt", 1))
        if plaintext is None and payload:
            plaintext = self._keys.open(payload, "step_error", step_id, attempt)
        failure, name = str(meta.get("reason", "failed")), operation.step.name
        cause = decode_error(plaintext) or _unrecorded(name, failure, meta)
        reason = failure if cause is None else describe_error(cause)
        if failure == "deadline" and plaintext:
            reason = f"its deadline passed; {reason}"
        error = StepFailedError(name, attempt, reason, failure=failure)
        error.__cause__ = cause
        future.set_exception(error)

    def _go_on(self) -> None:
        try:
            while not self.is_over:
                self.loop.run_until_idle()
                if self._task is not None and self._task.done():
                    self._finish(self._task)
                    break
                self.journal.settle()
                if self.loop.is_idle:  # what was settled may have been announced to who waits
                    break
        except NondeterminismError:
            raise
        except FluvialError as error:  # the workflow loops, or asks for too much
            self.journal.take_outputs()
            self._fail(error, error.code)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        self.journal.settle_last()
        if task.cancelled():
            self._end(EventType.RUN_CANCELLED, {}, None)
            return
        error = task.exception()
        if isinstance(error, Continuation):
            self._continue(error)
            return
        if error is None:
            try:
                plaintext = encode(task.result(), "result")
            except SerializationError as refused:
                self._fail(refused, refused.code)
            else:
                self._end(EventType.RUN_COMPLETED, {}, ("result", plaintext))
            return
        self._fail(error, error.code if isinstance(error, FluvialError) else "exception")

    def _continue(self, continuation: Continuation) -> None:
        run_id = continued_run_id(self.loop.scope.run_id)
        meta = {"run": run_id, **({"deployment": "latest"} if continuation.latest else {})}
        if self.journal.is_replaying:
            self._end(EventType.RUN_CONTINUED, meta, None)
            return
        sealed = self._keys.of(run_id).seal(continuation.plaintext, "input")
        self._end(EventType.RUN_CONTINUED, meta, None, payload=sealed)

    def _fail(self, error: BaseException, reason: str) -> None:
        meta = {"reason": reason}
        self._end(EventType.RUN_FAILED, meta, ("error", encode_error(error)), error)

    def _end(
        self,
        event_type: EventType,
        meta: dict[str, Any],
        secret: tuple[Literal["result", "error"], bytes] | None,
        error: BaseException | None = None,
        payload: bytes = b"",
    ) -> None:
        self.is_over = True
        if self.journal.is_replaying:
            self.journal.match_last(event_type, error, None if secret is None else secret[1])
            return
        if secret is not None:
            payload = self._keys.seal(secret[1], secret[0])
        try:
            self.journal.write(event_type, 0, payload, meta)
        except TurnTooLargeError:
            self.journal.take_outputs()
            self.journal.write(event_type, 0, payload, meta)


def _unrecorded(step: str, failure: str, meta: dict[str, Any]) -> BaseException | None:
    """Return the error that stands for an end which no instance has seen."""
    if failure == "interrupted":
        return StepInterruptedError(step, str(meta.get("cause", "for an unknown reason")))
    if failure == "crashed":
        return StepCrashedError(step, str(meta.get("cause", "for an unknown reason")))
    if failure in ("timeout", "heartbeat"):
        return TimeoutError(f"step {step} was ended: {failure}")
    if failure == "deadline":
        return TimeoutError(f"the deadline of step {step} passed")
    return None
