"""`heartbeat`: how a long step says that it is alive, and how far it has come."""

from __future__ import annotations

from typing import Any

from fluvial.attempt_scope import current_attempt
from fluvial.codec import encode
from fluvial.loop import current_loop
from fluvial.sandbox import refusal


def heartbeat(progress: Any = None) -> None:
    """Say that the step is alive; works in async and in sync bodies, and is cheap.

    `progress` is kept for the next attempt (`metadata().progress`), should this one be cut off or
    fail. It goes out at most every quarter of the step's `heartbeat` (at least a second apart), so
    the last of it may be lost with the instance. Where no run executes the step, nothing happens.

    Raises:
        WorkflowSandboxError: workflow code is running.
        SerializationError: the progress cannot be stored, or has more than 8 KiB.
        TimeoutError: the attempt is over, because no heartbeat had come in time.
    """
    if current_loop() is not None:
        raise refusal("fluvial.heartbeat()", "call it in a step")
    scope = current_attempt.get()
    if scope is not None:
        plaintext = None if progress is None else encode(progress, "progress")
        scope.open_pulse().beat(plaintext)
