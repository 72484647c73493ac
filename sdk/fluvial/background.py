"""`wait_until`: work that goes on after the response."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fluvial.context import background_port
from fluvial.errors import NotInInvocationError


def wait_until(work: Awaitable[Any] | Callable[[], Any]) -> None:
    """Let `work` go on after the response is sent, and keep the instance for it.

    It belongs to the HTTP invocation that is running here: it is metered and logged with it, and is
    cancelled at the invocation's maximum duration. A client that leaves does not stop it. What it
    raises is logged and reaches nobody. It may itself call `wait_until`.

    It is no promise: a crash of the instance loses it. What must happen belongs into a workflow.

    Args:
        work: a coroutine or another awaitable, which runs on the event loop; or a function without
            arguments, which runs in a thread (in a thread nothing can be cancelled).

    Raises:
        NotInInvocationError: no HTTP request is served here. A step waits for its work itself.
        TypeError: `work` can be neither awaited nor called.
    """
    port = background_port()
    if port is None:
        raise NotInInvocationError("wait_until() belongs to an HTTP request; none is served here")
    if not hasattr(work, "__await__") and not callable(work):
        raise TypeError(f"wait_until() takes an awaitable or a function, not {work!r}")
    port.wait_until(work)
