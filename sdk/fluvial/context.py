"""What is running here: the invocation, the platform that serves it, the run and the step.

The instance calls `activate` in the context (task) of every invocation before it runs the function.
Workflow code does not live in that context; its loop carries the invocation of the current turn.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from fluvial.attempt_scope import AttemptScope, current_attempt
from fluvial.errors import NotInInvocationError, NotInWorkflowError
from fluvial.loop import current_loop
from fluvial.ports import BackgroundPort, HeartbeatPort, Platform
from fluvial.sandbox import refusal
from fluvial.unguarded import monotonic

InvocationKind = Literal["http", "turn", "step", "reveal"]


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """The call of a function that is running here."""

    id: str  # inv_…
    kind: InvocationKind
    app: str
    deployment: str
    instance: str
    attempt: int = 1
    deadline_seconds: float | None = None  # of time.monotonic(); None: no deadline
    app_url: str = ""  # where the app's production answers, as the platform knows it; "": nowhere
    request_id: str = ""  # of an HTTP request: what the client has sent as `x-request-id`, or `id`
    traceparent: str = ""  # of an HTTP request: what belongs into a call that is made for it
    tracestate: str = ""  # as the request had it
    stop_asked: Callable[[], bool] = field(default=_never, repr=False, compare=False)

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for this any more: the client has left, or the time is over.

        An async function is cancelled then; a sync one runs in a thread, which nothing can stop,
        and may look here between two pieces of work.
        """
        return self.stop_asked()

    @property
    def remaining_seconds(self) -> float | None:
        """How long the invocation may still run; 0 once it should have ended, None for ever."""
        if self.deadline_seconds is None:
            return None
        return max(0.0, self.deadline_seconds - monotonic())


class InvocationSource(Protocol):
    """Whoever can say what the invocation is, if somebody asks."""

    def describe(self) -> Invocation:
        """Return the invocation."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Which run, and which attempt of which step, is running here."""

    run_id: str
    workflow: str
    deployment: str | None = None  # None: this code is not deployed
    step: str | None = None
    step_id: int | None = None
    attempt: int = 1
    step_started_at: datetime | None = None  # when the first attempt began
    previous_error: BaseException | None = None
    """What the attempt before failed with; None also where that is large, or not known."""
    progress: Any = None
    """What the execution before has handed to `heartbeat` last, as far as it got through."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of one step of one run; different for any other."""
        return self.run_id if self.step_id is None else f"{self.run_id}-{self.step_id}"


_invocation: ContextVar[Invocation | InvocationSource | None] = ContextVar(
    "fluvial_invocation", default=None
)
_platform: ContextVar[Platform | None] = ContextVar("fluvial_platform", default=None)


def activate(invocation: Invocation | InvocationSource | None, platform: Platform | None) -> None:
    """Say what runs in the current context (the instance calls this, in each invocation's task)."""
    _invocation.set(invocation)
    _platform.set(platform)


def current_invocation() -> Invocation | None:
    """Return the invocation that is running here, if one is; also inside workflow code."""
    loop = current_loop()
    if loop is not None:
        found: Invocation | None = loop.invocation
        return found
    running = _invocation.get()
    return running if running is None or isinstance(running, Invocation) else running.describe()


def background_port() -> BackgroundPort | None:
    """Return the invocation that is running here, if it can go on after its response."""
    running: object = None if current_loop() is not None else _invocation.get()
    return running if isinstance(running, BackgroundPort) else None


def context() -> Invocation:
    """Return the invocation that is running here.

    Raises:
        NotInInvocationError: nothing of a deployed app is running here.
    """
    invocation = current_invocation()
    if invocation is None:
        raise NotInInvocationError("no invocation is running here; is this code deployed?")
    return invocation


def is_replaying() -> bool:
    """Whether workflow code runs only to be brought back to where it was: what it prints was
    printed before."""
    loop = current_loop()
    return loop is not None and loop.journal.is_replaying


def metadata() -> Metadata:
    """Return the run (and the step) that is running here.

    Raises:
        NotInWorkflowError: neither a workflow nor a step is running here.
        DecryptionError: what the attempt before left was altered, or its key is gone.
    """
    loop = current_loop()
    if loop is not None:
        scope = loop.scope
        return Metadata(run_id=scope.run_id, workflow=scope.workflow, deployment=_deployment())
    found = current_attempt.get()
    if found is None:
        raise NotInWorkflowError("metadata() works in workflows and in steps that a run executes")
    if found.metadata is None:
        found.metadata = _metadata_of(found)
    return found.metadata


def _metadata_of(attempt: AttemptScope) -> Metadata:
    request = attempt.request
    began_ms = request.history.started_ms if request.history is not None else 0
    return Metadata(
        run_id=request.run_id,
        workflow=request.workflow,
        deployment=_deployment(),
        step=request.step,
        step_id=request.id,
        attempt=request.attempt,
        step_started_at=datetime.fromtimestamp((began_ms or request.now_ms) / 1000, UTC),
        previous_error=attempt.services.previous_error(request),
        progress=attempt.services.previous_progress(request),
    )


def _deployment() -> str | None:
    invocation = current_invocation()
    return None if invocation is None else invocation.deployment


def open_pulse() -> Callable[[bytes], None]:
    """Return what tells the platform, if it wants to hear it, that this invocation is alive."""
    found: object = _platform.get()
    return found.open_pulse() if isinstance(found, HeartbeatPort) else _report_to_nobody


def _report_to_nobody(progress: bytes) -> None: ...


def platform(what: str) -> Platform:
    """Return the platform that serves this invocation, for an operation called `what`.

    Raises:
        WorkflowSandboxError: workflow code is running; it must ask in a step.
        NotInInvocationError: nothing of a deployed app is running here.
    """
    if current_loop() is not None:
        raise refusal(f"fluvial.{what}()", "do it in a step")
    found = _platform.get()
    if found is None:
        raise NotInInvocationError(
            f"fluvial.{what}() works in deployed code only; from outside use fluvial.Client"
        )
    return found
