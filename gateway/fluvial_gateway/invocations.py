"""How the gateway asks for turns, steps, reveals and checks, and what it hears back.

The data plane's router implements `Invocations`. Everything here is a callback on the event loop:
on the dispatcher's path there is no task per invocation.

Of each invocation the caller hears exactly one outcome:

    Answered     the instance answered; what it proposes is in `answer`
    Lost         the invocation may have been started, and its instance or link is gone
    Unavailable  it was never started: no handler ran, so sending it again is always safe
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fluvial.invocations import Answer, Revealed


@dataclass(frozen=True, slots=True)
class Answered:
    """An instance answered."""

    instance: str
    answer: Answer
    cpu_us: int
    texts: Sequence[Revealed] = ()  # a reveal: one per event of the request; a check: its report


@dataclass(frozen=True, slots=True)
class Lost:
    """The invocation was cut off: its instance or link is gone, or it was cancelled and has said
    before how far it was. Its handler may have been started."""

    instance: str
    reason: str
    progress: bytes = b""  # what its step had reported last, sealed
    crashed: bool = False  # its process was its own, and ended by what the code in it did


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The invocation was never started.

    Codes: `overloaded`, `queue_timeout`, `import_failed`, `deployment_not_found`, `cancelled`,
    `unavailable`, and those of the invoker (`bundle_missing`, `start_failed`, `capacity`).
    """

    code: str
    message: str
    retryable: bool
    retry_after_seconds: float | None = None


Outcome = Answered | Lost | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Which execution of a step an invocation is, as the dispatcher knows it.

    It never leaves the gateway. Calls that come out of the invocation are known by it, so nothing
    that an instance says of itself must be believed.
    """

    run_id: str
    step_id: int
    attempt: int
    message_id: str  # of this one execution: another one has a greater id


class InvocationHandle(Protocol):
    """One invocation under way."""

    @property
    def instance(self) -> str | None:
        """The instance it was sent to; None while it waits for one."""
        ...

    def cancel(self, reason: str) -> None:
        """End it: refused with `cancelled` if it waits, else the instance is asked to stop.

        The outcome still arrives through `done`: an answer whose outcome is `cancelled`, the
        answer itself if it was faster, or `Lost` where the instance does not yield and is killed.
        """
        ...


class Invocations(Protocol):
    """Sends invocations to instances of deployments."""

    def invoke(
        self,
        deployment: str,
        fields: tuple[str, dict[str, Any], bytes],
        *,
        prefer: str | None,
        deadline_seconds: float,
        done: Callable[[Outcome], None],
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
        isolated: bool = False,
    ) -> InvocationHandle:
        """Send one invocation; `done` is called exactly once, later, on the event loop.

        Args:
            deployment: the deployment whose instance is to execute it.
            fields: what `to_frame_fields` of a request returned.
            prefer: the instance to use if it lives and has room: the one with the live coroutine.
            deadline_seconds: having waited so long it is refused; having run so long, cancelled.
            done: is told the outcome; never called before `invoke` has returned.
            subject: what the invocation executes, for the calls that come out of it.
            heartbeat_ms: how long it may run without a sign of life; 0: as long as it wants.
            isolated: in a fresh process of its own, which ends with it.
        """
        ...

    def forget(self, instance: str, run_ids: Sequence[str]) -> None:
        """Hint that these live runs of the instance will not be asked for again."""
        ...


async def outcome_of(
    invocations: Invocations,
    deployment: str,
    fields: tuple[str, dict[str, Any], bytes],
    *,
    deadline_seconds: float,
) -> Outcome:
    """Send one invocation and wait for its outcome; for callers that have a task of their own.

    If the wait is cancelled, so is the invocation.
    """
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def done(told: Outcome) -> None:
        if not outcome.done():
            outcome.set_result(told)

    handle = invocations.invoke(
        deployment, fields, prefer=None, deadline_seconds=deadline_seconds, done=done
    )
    try:
        return await outcome
    except asyncio.CancelledError:
        handle.cancel("client_gone")
        raise
