"""Runs, from outside a workflow: start them, look at them, wait for them, resume their hooks.

These functions work inside invocations of deployed code (HTTP handlers and steps). They never hand
plaintext to the platform: inputs and payloads are sealed here and results opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from fluvial.codec import encode
from fluvial.context import platform
from fluvial.errors import (
    InvalidRequestError,
    RunCancelledError,
    RunFailedError,
    RunTerminatedError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.execution import decode_error, describe_error
from fluvial.ids import keyed_run_id
from fluvial.invocations import unpack_events
from fluvial.payloads import PayloadReader
from fluvial.ports import Platform
from fluvial.scope import run_of_token
from fluvial.shapes import ANY, Shape
from fluvial.signatures import decode_result, encode_call
from fluvial.unguarded import monotonic, random_bytes
from fluvial.workflows import Workflow

R = TypeVar("R")

MAX_KEY_BYTES: Final = 512
_WAIT_MS: Final = 20_000  # one question to the platform; a longer wait asks again
_OVER: Final = frozenset({"completed", "failed", "cancelled", "terminated", "continued"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """One entry of a run's log, with its payload decoded."""

    type: EventType
    at: datetime
    id: int
    meta: dict[str, Any]
    value: Any


class Run(Generic[R]):
    """One execution of a workflow. `status` is as of the last time the platform was asked."""

    def __init__(self, run_id: str, served_by: Platform, workflow: Workflow[..., R] | None) -> None:
        self.id = run_id
        self.status = "pending"
        self.workflow: str | None = workflow.name if workflow is not None else None
        self._platform = served_by
        self._shape: Shape = workflow.signature.result if workflow is not None else ANY

    def __repr__(self) -> str:
        return f"<run {self.id} {self.status}>"

    @property
    def done(self) -> bool:
        """Whether the run has ended, as of the last time the platform was asked."""
        return self.status in _OVER

    async def refresh(self) -> Run[R]:
        """Ask the platform how the run stands.

        Raises:
            RunNotFoundError: it never existed, or its retention is over.
        """
        found, _ = await self._platform.call("run", {"run_id": self.id})
        self.status = str(found["status"])
        self.workflow = str(found["workflow"])
        return self

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - part of the API
        """Wait for the run to end and return what it returned.

        Raises:
            RunFailedError: it failed; `__cause__` is the workflow's error.
            RunCancelledError, RunTerminatedError: it was.
            TimeoutError: it has not ended after `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            wait_ms = _WAIT_MS
            if deadline is not None:
                wait_ms = max(0, min(wait_ms, round((deadline - monotonic()) * 1000)))
            arguments = {"run_id": self.id, "wait_ms": wait_ms}
            found, body = await self._platform.call("result", arguments)
            self.status = str(found["status"])
            if self.done:
                return self._outcome(decode_event(body))
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"run {self.id} has not ended after {timeout} seconds")

    async def cancel(self, reason: str = "") -> None:
        """Ask the workflow to stop: it gets a CancelledError and may clean up durably."""
        await self._platform.call("cancel", {"run_id": self.id, "reason": reason})

    async def terminate(self) -> None:
        """End the run at once, without clean-up."""
        await self._platform.call("terminate", {"run_id": self.id})

    async def events(self) -> list[RunEvent]:
        """Return the run's log so far."""
        reader = PayloadReader(self._platform.keys.for_run(self.id))
        events, _, _ = await self._read(0, 0)
        return [_decoded(reader, event) for event in events]

    async def follow(self) -> AsyncIterator[RunEvent]:
        """Yield the run's log from its beginning, and what is added, until the run ends."""
        reader = PayloadReader(self._platform.keys.for_run(self.id))
        position, status = 0, ""
        while status not in _OVER:
            events, position, status = await self._read(position, _WAIT_MS)
            for event in events:
                yield _decoded(reader, event)

    async def _read(self, start: int, wait_ms: int) -> tuple[list[Event], int, str]:
        arguments = {"run_id": self.id, "start": start, "wait_ms": wait_ms}
        found, body = await self._platform.call("events", arguments)
        self.status = str(found["status"])
        return list(map(decode_event, unpack_events(body))), int(found["next"]), self.status

    def _outcome(self, event: Event) -> R:
        keys = self._platform.keys.for_run(self.id)
        if event.type is EventType.RUN_COMPLETED:
            result: R = decode_result(keys.open(event.payload, "result"), self._shape)
            return result
        if event.type is EventType.RUN_CANCELLED:
            raise RunCancelledError(self.id, "was cancelled")
        if event.type is EventType.RUN_TERMINATED:
            raise RunTerminatedError(self.id, "was terminated")
        cause = decode_error(keys.open(event.payload, "error"))
        reason = describe_error(cause) if cause is not None else "without an error"
        raise RunFailedError(self.id, f"failed: {reason}") from cause


async def start(
    workflow: Workflow[..., R], *args: Any, key: str | None = None, **kwargs: Any
) -> Run[R]:
    """Start a run of a workflow and return it at once.

    With `key`, starting again with the same key and the same arguments returns the same run.

    Raises:
        StartConflictError: the key was used with other arguments.
        SerializationError: an argument cannot be stored; the path names it.
        WorkflowSandboxError: called in a workflow; do it in a step.
    """
    served_by = platform("start")
    workflow.signature.parameters.bind(*args, **kwargs)  # a wrong call fails here, not in the run
    plaintext = encode_call(args, kwargs)
    name = workflow.name
    run_id = _run_id(served_by, name, key) if key is not None else served_by.new_run_id()
    arguments = {
        "workflow": name,
        "run_id": run_id,
        "key": key,
        "fingerprint": served_by.keys.fingerprint(name, plaintext),
    }
    sealed = served_by.keys.for_run(run_id).seal(plaintext, "input")
    found, _ = await served_by.call("start", arguments, sealed)
    return Run(str(found["run_id"]), served_by, workflow)


async def get_run(
    run_id: str | None = None, *, key: str | None = None, workflow: Workflow[..., R] | None = None
) -> Run[R]:
    """Return a run by its id, or by the key and the workflow it was started with.

    Raises:
        RunNotFoundError: it never existed, or its retention is over.
        InvalidRequestError: neither an id nor a key with its workflow was given.
    """
    served_by = platform("get_run")
    if (run_id is None) == (key is None):
        raise InvalidRequestError("get_run needs either a run id or key=… with workflow=…")
    if key is not None:
        if workflow is None:
            raise InvalidRequestError("get_run(key=…) needs workflow=… too")
        run_id = _run_id(served_by, workflow.name, key)
    return await Run(str(run_id), served_by, workflow).refresh()


async def resume_hook(token: str, value: Any = None, *, resume_id: str | None = None) -> bool:
    """Hand `value` to the open hook that has this token.

    With `resume_id`, resuming again with the same id is the same resume. Returns whether the
    payload was new.

    Raises:
        HookNotFoundError: no open hook has the token.
        SerializationError: the value cannot be stored; the path names what cannot.
    """
    served_by = platform("resume_hook")
    plaintext = encode(value, "value")
    run_id = run_of_token(token)
    if run_id is None:
        found, _ = await served_by.call("token", {"token": token})
        run_id = str(found["run_id"])
    arguments = {
        "run_id": run_id,
        "token": token,
        "resume_id": resume_id if resume_id is not None else random_bytes(16).hex(),
    }
    sealed = served_by.keys.for_run(run_id).seal(plaintext, "hook", token)
    answered, _ = await served_by.call("resume", arguments, sealed)
    return bool(answered["outcome"] == "accepted")


def _run_id(served_by: Platform, workflow: str, key: str) -> str:
    if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
        raise InvalidRequestError(f"a key must have 1 to {MAX_KEY_BYTES} bytes")
    return keyed_run_id(served_by.app, workflow, key, served_by.partitions)


def _decoded(reader: PayloadReader, event: Event) -> RunEvent:
    return RunEvent(
        type=event.type,
        at=datetime.fromtimestamp(event.at_ms / 1000, UTC),
        id=event.id,
        meta=event.meta,
        value=reader.value(event),
    )
