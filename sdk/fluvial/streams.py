"""`fluvial.stream()`: the outputs that a step writes while it runs."""

from __future__ import annotations

import asyncio

from fluvial.errors import InvalidRequestError
from fluvial.loop import current_loop
from fluvial.sandbox import refusal
from fluvial.stream_entries import DEFAULT_STREAM, check_stream_name
from fluvial.stream_writing import BlockingStreamWriter, Nowhere, StreamWriter, attempt_streams


def stream(name: str = DEFAULT_STREAM) -> StreamWriter:
    """Return the writer of a stream of the run whose step is running here.

    A stream is made when it is first written to. In a step that no run executes (called as a plain
    function), what is written goes nowhere.

    Raises:
        InvalidRequestError: a stream cannot have this name, or a sync step asks.
        WorkflowSandboxError: workflow code asks; write in a step.
    """
    _refuse_workflow("fluvial.stream()")
    check_stream_name(name)
    attempt = attempt_streams()
    if attempt is None:
        return StreamWriter(name, Nowhere())
    if not _is_on_loop():
        raise InvalidRequestError("in a sync step, write with fluvial.blocking_stream()")
    return attempt.writer(name)


def blocking_stream(name: str = DEFAULT_STREAM) -> BlockingStreamWriter:
    """Return the same for a sync step, whose body runs in a thread.

    Raises:
        InvalidRequestError: a stream cannot have this name, or code on an event loop asks.
        WorkflowSandboxError: workflow code asks; write in a step.
    """
    _refuse_workflow("fluvial.blocking_stream()")
    check_stream_name(name)
    attempt = attempt_streams()
    if attempt is None:
        return BlockingStreamWriter(StreamWriter(name, Nowhere()), None)
    if _is_on_loop():
        raise InvalidRequestError(
            "fluvial.blocking_stream() would block the event loop: use fluvial.stream() here"
        )
    return BlockingStreamWriter(attempt.writer(name), attempt.loop)


def _refuse_workflow(what: str) -> None:
    if current_loop() is not None:
        raise refusal(what, "write to streams in a step")


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
