"""Runs, from outside a workflow: look at them, wait for them, resume their hooks.

These functions work inside invocations of deployed code (HTTP handlers and steps). They never hand
plaintext to the platform: inputs and payloads are sealed here and results opened here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from fluvial.codec import decode, encode
from fluvial.context import platform
from fluvial.durations import Duration
from fluvial.error_payloads import decode_error, describe_error
from fluvial.errors import (
    HookNotFoundError,
    InvalidRequestError,
    RunCancelledError,
    RunClosedError,
    RunFailedError,
    RunNotFoundError,
    RunTerminatedError,
)
from fluvial.events import Event, EventType, decode_event
from fluvial.hook_tokens import run_of_token
from fluvial.ids import continued_run_id, keyed_run_id
from fluvial.invocations import unpack_events
from fluvial.options import check_tags
from fluvial.payloads import PayloadReader
from fluvial.ports import Platform
from fluvial.shapes import ANY, Shape, shape_of
from fluvial.signatures import decode_result
from fluvial.stream_entries import DEFAULT_STREAM
from fluvial.stream_reading import StreamInfo, StreamReader, list_streams
from fluvial.talking import DEFAULT_TIMEOUT, DEFAULT_WAIT, Message
from fluvial.unguarded import monotonic, random_bytes
from fluvial.workflows import Workflow

if TYPE_CHECKING:
    from fluvial.encryption import RunKeys

R = TypeVar("R")
T = TypeVar("T")

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
    """One execution of a workflow. `status` is as of the last time the platform was asked.

    A run that goes on as a new one (`continue_as_new`) and the runs it goes on as are one here: the
    status and the result are those of the last one.
    """

    def __init__(
        self, run_id: str, served_by: Platform | None, workflow: Workflow[..., R] | None
    ) -> None:
        self.id = run_id
        self.last_id = run_id  # of the run that goes on in its place, as far as is known
        self.status = "pending"
        self.tags: dict[str, str] = {}
        self.workflow: str | None = workflow.name if workflow is not None else None
        self._platform = served_by
        self._shape: Shape = workflow.signature.result if workflow is not None else ANY

    def __repr__(self) -> str:
        return f"<run {self.id} {self.status}>"

    @property
    def done(self) -> bool:
        """Whether the run has ended, as of the last time the platform was asked."""
        return self.status in _OVER

    def _serving(self, what: str) -> Platform:
        return self._platform if self._platform is not None else platform(f"Run.{what}")

    async def refresh(self) -> Run[R]:
        """Ask the platform how the run stands.

        Raises:
            RunNotFoundError: it never existed, or its retention is over.
        """
        served_by = self._serving("refresh")
        while True:
            found, _ = await served_by.call("run", {"run_id": self.last_id})
            self.status = str(found["status"])
            self.workflow = str(found["workflow"])
            self.tags = dict(found.get("tags", {}))
            if self.status != "continued":
                return self
            self.last_id = continued_run_id(self.last_id)

    async def result(self, timeout: float | None = None) -> R:  # noqa: ASYNC109 - part of the API
        """Wait for the run to end and return what it returned.

        Raises:
            RunFailedError: it failed; `__cause__` is the workflow's error.
            RunCancelledError, RunTerminatedError: it was.
            TimeoutError: it has not ended after `timeout` seconds.
        """
        served_by = self._serving("result")
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            wait_ms = _WAIT_MS
            if deadline is not None:
                wait_ms = max(0, min(wait_ms, round((deadline - monotonic()) * 1000)))
            arguments = {"run_id": self.last_id, "wait_ms": wait_ms}
            found, body = await served_by.call("result", arguments)
            self.status = str(found["status"])
            if self.status == "continued":
                self.last_id = continued_run_id(self.last_id)
            elif self.done:
                return self._outcome(served_by.keys.for_run(self.last_id), decode_event(body))
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"run {self.id} has not ended after {timeout} seconds")

    async def cancel(self, reason: str = "") -> None:
        """Ask the workflow to stop: it gets a CancelledError and may clean up durably."""
        served_by = self._serving("cancel")
        await served_by.call("cancel", {"run_id": self.last_id, "reason": reason})

    async def terminate(self, reason: str = "") -> None:
        """End the run at once, without clean-up."""
        arguments = {"run_id": self.last_id, "reason": reason}
        await self._serving("terminate").call("terminate", arguments)

    async def pause(self, reason: str = "") -> None:
        """Have nothing more of the run started until it is resumed; what is under way goes on."""
        arguments = {"run_id": self.last_id, "reason": reason}
        await self._serving("pause").call("pause", arguments)

    async def resume(self, *, deployment: str | None = None) -> None:
        """Let the paused run go on, on `deployment` if given: an id, or "latest" for production.

        To hand something to a hook of the run, use `send` or `resume_hook`.
        """
        arguments = {"run_id": self.last_id, "deployment": deployment or ""}
        await self._serving("resume").call("resume_run", arguments)

    async def wake(self) -> None:
        """End the run's sleeps now; timeouts go on. A run whose start is delayed begins."""
        await self._serving("wake").call("wake", {"run_id": self.last_id})

    async def retry(self) -> None:
        """Have the attempts of steps made now that wait for their time."""
        await self._serving("retry").call("retry", {"run_id": self.last_id})

    async def state(self, wanted: Any = None) -> Any:
        """Return what the run has published last (`fluvial.publish`); None: nothing yet.

        With `wanted`, a type, the value is shaped as it says. Nothing of the run is woken.

        Raises:
            RunNotFoundError: it never existed, or its retention is over.
        """
        served_by = self._serving("state")
        await self.refresh()
        _, body = await served_by.call("state", {"run_id": self.last_id})
        if not body:
            return None
        event = decode_event(body)
        number = int(event.meta.get("number", 0))
        plaintext = served_by.keys.for_run(self.last_id).open(event.payload, "state", 0, number)
        return decode(plaintext, shape_of(wanted), "state")

    async def send(
        self,
        name: str,
        value: Any = None,
        *,
        resume_id: str | None = None,
        wait: Duration = DEFAULT_WAIT,
    ) -> bool:
        """Hand `value` to the run's hook of that name; return whether it was new.

        Args:
            name: that of `Hook(…, name=…)` in the workflow.
            value: what the hook takes.
            resume_id: sending again with the same id is the same sending.
            wait: how long to wait for the hook to open.

        Raises:
            HookNotFoundError: it has not opened.
            RunNotFoundError, RunClosedError: there is no such run, or it has ended.
            SerializationError: the value cannot be stored; the path names what cannot.
        """
        said = Message(self._serving("send"), self, name, value, resume_id)
        return await said.deliver(wait, asks=False)

    @overload
    async def ask(
        self,
        name: str,
        value: Any = ...,
        *,
        wanted: None = ...,
        timeout: Duration = ...,  # noqa: ASYNC109 - part of the API
        resume_id: str | None = ...,
        wait: Duration = ...,
    ) -> Any: ...
    @overload
    async def ask(
        self,
        name: str,
        value: Any = ...,
        *,
        wanted: type[T],
        timeout: Duration = ...,  # noqa: ASYNC109 - part of the API
        resume_id: str | None = ...,
        wait: Duration = ...,
    ) -> T: ...
    async def ask(
        self,
        name: str,
        value: Any = None,
        *,
        wanted: Any = None,
        timeout: Duration = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - part of the API
        resume_id: str | None = None,
        wait: Duration = DEFAULT_WAIT,
    ) -> Any:
        """Hand `value` to the run's hook of that name and return what the workflow answers.

        Args:
            name: that of `Hook(…, name=…)` in the workflow.
            value: what the hook takes.
            wanted: the type of the answer; default: as it was stored.
            timeout: how long to wait for the answer, once the run has the value.
            resume_id: asking again with the same id is the same question: it has one answer.
            wait: how long to wait for the hook to open.

        Raises:
            AskRefusedError: the workflow refuses, or the value is not what the hook takes.
            AskUnansweredError: the run ends, or closes the hook, without an answer.
            TimeoutError: there is no answer yet; the run has the value, and may still answer.
            HookNotFoundError, RunNotFoundError, RunClosedError, SerializationError: as `send`.
        """
        asked = Message(self._serving("ask"), self, name, value, resume_id)
        await asked.deliver(wait, asks=True)
        return await asked.answer(timeout, shape_of(wanted))

    async def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Set tags of the run; None takes one away.

        Raises:
            InvalidRequestError: too many tags, or too long ones.
        """
        check_tags(tags)
        arguments = {"run_id": self.last_id, "tags": dict(tags)}
        await self._serving("set_tags").call("tag", arguments)

    async def events(self) -> list[RunEvent]:
        """Return the run's log so far."""
        served_by = self._serving("events")
        reader = PayloadReader(served_by.keys.for_run(self.id))
        events, _, _ = await self._read(served_by, 0, 0)
        return [open_event(reader, event) for event in events]

    async def follow(self) -> AsyncIterator[RunEvent]:
        """Yield the run's log from its beginning, and what is added, until the run ends."""
        served_by = self._serving("follow")
        reader = PayloadReader(served_by.keys.for_run(self.id))
        position, status = 0, ""
        while status not in _OVER:
            events, position, status = await self._read(served_by, position, _WAIT_MS)
            for event in events:
                yield open_event(reader, event)

    @overload
    def stream(self, name: str = ..., *, start: int = ...) -> StreamReader[Any]: ...
    @overload
    def stream(self, name: str = ..., *, start: int = ..., type: type[T]) -> StreamReader[T]: ...
    def stream(
        self,
        name: str = DEFAULT_STREAM,
        *,
        start: int = 0,
        type: Any = None,  # noqa: A002 - part of the API
    ) -> StreamReader[Any]:
        """Return a reader of one of the run's streams: `async for` gives its values until it is
        closed. It may be asked for before the stream exists.

        Args:
            name: which stream.
            start: the position of the first entry; negative: so many before the end.
            type: what the values are; default: as they were stored.
        """
        served_by = self._serving("stream")
        return StreamReader(served_by, self.id, name, start=start, shape=shape_of(type))

    async def streams(self) -> list[StreamInfo]:
        """Return the run's streams in the order in which they were made."""
        return await list_streams(self._serving("streams"), self.id)

    async def _read(
        self, served_by: Platform, start: int, wait_ms: int
    ) -> tuple[list[Event], int, str]:
        arguments = {"run_id": self.id, "start": start, "wait_ms": wait_ms}
        found, body = await served_by.call("events", arguments)
        self.status = str(found["status"])
        return list(map(decode_event, unpack_events(body))), int(found["next"]), self.status

    def _outcome(self, keys: RunKeys, event: Event) -> R:
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
        run_id = id_of_key(served_by, workflow.name, key)
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
    once = resume_id if resume_id is not None else random_bytes(16).hex()
    maker = run_of_token(token)
    if maker is not None:
        # Where it is gone, a fork may have taken the token over.
        with suppress(HookNotFoundError, RunNotFoundError, RunClosedError):
            return await _resume(served_by, maker, token, once, plaintext)
    found, _ = await served_by.call("token", {"token": token})
    return await _resume(served_by, str(found["run_id"]), token, once, plaintext)


async def _resume(
    served_by: Platform, run_id: str, token: str, resume_id: str, plaintext: bytes
) -> bool:
    sealed = served_by.keys.for_run(run_id).seal(plaintext, "hook", token)
    arguments = {"run_id": run_id, "token": token, "resume_id": resume_id}
    answered, _ = await served_by.call("resume", arguments, sealed)
    return bool(answered["outcome"] == "accepted")


def id_of_key(served_by: Platform, workflow: str, key: str) -> str:
    """Return the id of the run of a workflow that a key names.

    Raises:
        InvalidRequestError: the key is empty or too long.
    """
    if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
        raise InvalidRequestError(f"a key must have 1 to {MAX_KEY_BYTES} bytes")
    return keyed_run_id(served_by.app, workflow, key, served_by.partitions)


def open_event(reader: PayloadReader, event: Event) -> RunEvent:
    """Return an event with its payload decoded; a reader takes the events in log order."""
    return RunEvent(
        type=event.type,
        at=datetime.fromtimestamp(event.at_ms / 1000, UTC),
        id=event.id,
        meta=event.meta,
        value=reader.value(event),
    )
