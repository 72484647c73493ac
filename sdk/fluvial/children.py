"""Child runs: runs that a workflow starts and may wait for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from fluvial.error_payloads import decode_error, describe_error
from fluvial.errors import (
    FluvialError,
    InvalidRequestError,
    NondeterminismError,
    RunCancelledError,
    RunFailedError,
    RunTerminatedError,
    SerializationError,
)
from fluvial.events import EventType
from fluvial.ids import child_run_id, continued_run_id, keyed_run_id
from fluvial.journal import Operation
from fluvial.loop import WorkflowLoop
from fluvial.options import StartOptions
from fluvial.runs import Run
from fluvial.sandbox import refusal
from fluvial.signatures import decode_result, encode_call

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys
    from fluvial.workflows import Workflow

R = TypeVar("R")

_MAX_HOPS = 1_000_000  # continued runs between a child and its end


class ChildOperation(Operation):
    """A child run that a workflow asked for."""

    __slots__ = (
        "_meta",
        "_plaintext",
        "future",
        "key",
        "known",
        "loop",
        "run_id",
        "workflow",
    )
    opens = EventType.CHILD_SCHEDULED
    closes = EventType.CHILD_CANCELLED
    announces = True

    def __init__(
        self,
        loop: WorkflowLoop,
        workflow: Workflow[..., Any],
        plaintext: bytes,
        *,
        key: str | None,
        meta: dict[str, Any],
    ) -> None:
        super().__init__()
        self.loop = loop
        self.workflow = workflow
        self.key = key
        self.run_id = ""  # given when it is settled
        self.known: asyncio.Future[None] = asyncio.Future(loop=loop)
        self.future: asyncio.Future[Any] = asyncio.Future(loop=loop)
        self._plaintext = plaintext
        self._meta = meta

    @property
    def is_detached(self) -> bool:
        """Whether nobody hears of its end."""
        return bool(self._meta["policy"] == "detach")

    def opening_meta(self) -> dict[str, Any]:
        scope = self.loop.scope
        if self.key is None:
            run_id = child_run_id(scope.run_id, self.id, scope.partitions)
        else:
            run_id = keyed_run_id(scope.app, self.workflow.name, self.key, scope.partitions)
        meta = {"workflow": self.workflow.name, "run": run_id, **self._meta}
        return meta if self.key is None else {**meta, "key": self.key}

    def take_plaintext(self) -> bytes:
        plaintext, self._plaintext = self._plaintext, b""
        return plaintext

    def seal(self, keys: RunKeys, plaintext: bytes) -> bytes:
        return keys.of(self.opening_meta()["run"]).seal(plaintext, "input")

    def unseal(self, keys: RunKeys, sealed: bytes) -> bytes:
        return keys.of(self.opening_meta()["run"]).open(sealed, "input")

    def announced(self, meta: dict[str, Any]) -> None:
        self.run_id = str(meta["run"])
        if self.is_detached:
            self.loop.journal.finish(self)
        self.known.set_result(None)

    def complete(self, keys: RunKeys, payload: bytes, meta: dict[str, Any]) -> None:
        """Take in the child's result."""
        plaintext = keys.of(self._checked_run(meta)).open(payload, "result")
        try:
            self.future.set_result(decode_result(plaintext, self.workflow.signature.result))
        except SerializationError as error:
            self.fail(error)

    def end_badly(self, keys: RunKeys, payload: bytes, meta: dict[str, Any]) -> None:
        """Take in that the child has ended without a result."""
        run_id, status, reason = str(meta["run"]), meta["status"], str(meta["reason"])
        error: FluvialError
        if status == "cancelled":
            error = RunCancelledError(run_id, "was cancelled")
        elif status == "terminated":
            error = RunTerminatedError(run_id, f"was terminated ({reason})")
        elif status == "not_started":
            error = RunFailedError(run_id, f"was not started: {reason}")
        else:
            checked = keys.of(self._checked_run(meta))
            cause = decode_error(checked.open(payload, "error") if payload else None)
            described = reason if cause is None else describe_error(cause)
            error = RunFailedError(run_id, f"failed: {described}")
            error.__cause__ = cause
        self.fail(error)

    def fail(self, error: FluvialError) -> None:
        """Have every wait for the result raise `error`."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # seen: whoever does not wait for it need not hear of it

    def _checked_run(self, meta: dict[str, Any]) -> str:
        """Return the run whose end this is: the child, or the last of those it went on as.

        The id in the log is in clear; a result of any other run must not be taken for this one's.
        """
        expected, hops = self.run_id, int(meta.get("hops", 0))
        if not 0 <= hops <= _MAX_HOPS:
            raise NondeterminismError(f"the child {self.run_id} went on {hops} times")
        for _ in range(hops):
            expected = continued_run_id(expected)
        if meta["run"] != expected:
            raise NondeterminismError(f"the log gives the end of {meta['run']} for {self.run_id}")
        return expected


class ChildRun(Run[R]):
    """A child run, as its parent sees it: its waits are durable.

    Its `status` is as of the last thing that the parent has heard of it.
    """

    def __init__(self, operation: ChildOperation) -> None:
        super().__init__(operation.run_id, None, operation.workflow)
        self._operation = operation

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - as Run has it
        """Wait durably for the child's end and return what it returned.

        To be cancelled while waiting does not cancel the child.

        Raises:
            RunFailedError: it failed; `__cause__` is its error. Or it could not be started.
            RunCancelledError, RunTerminatedError: it was.
            TimeoutError: it has not ended after `timeout` seconds.
        """
        if self._operation.is_detached:
            raise InvalidRequestError(f"{self.id} is detached: its parent does not hear of its end")
        async with asyncio.timeout(timeout):
            result: R = await asyncio.shield(self._operation.future)
        self.status = "completed"
        return result

    async def cancel(self, reason: str = "") -> None:
        """Ask the child to stop; it may clean up durably, and the parent does not wait for that."""
        operation = self._operation
        operation.loop.journal.withdraw(operation)
        operation.fail(RunCancelledError(self.id, "was cancelled by its parent"))

    def _serving(self, what: str) -> NoReturn:
        raise refusal(f"Run.{what}()", "ask in a step (get_run), or wait for the child's result")


async def start_child(
    loop: WorkflowLoop,
    workflow: Workflow[..., R],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    key: str | None,
    options: StartOptions,
) -> ChildRun[R]:
    """Start a child of the run that is running here."""
    if options.singleton is not None:
        raise InvalidRequestError("a child cannot be a singleton: start it in a step")
    meta = options.to_meta(loop.time())
    meta["policy"] = "detach" if options.detached else options.on_parent_end
    operation = ChildOperation(loop, workflow, encode_call(args, kwargs), key=key, meta=meta)
    loop.journal.ask(operation)
    try:
        await operation.known
    except BaseException:
        loop.journal.withdraw(operation)
        raise
    return ChildRun(operation)
