"""What is running here: the invocation, the platform that serves it, the run and the step.

The instance calls `activate` in the context (task) of every invocation before it runs the function.
Workflow code does not live in that context; its loop carries the invocation of the current turn.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from fluvial.errors import NotInInvocationError, NotInWorkflowError
from fluvial.loop import current_loop
from fluvial.ports import Platform
from fluvial.sandbox import refusal

InvocationKind = Literal["http", "turn", "step", "reveal"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Which run, and which attempt of which step, is running here."""

    run_id: str
    workflow: str
    step: str | None = None
    step_id: int | None = None
    attempt: int = 1

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of one step of one run; different for any other."""
        return self.run_id if self.step_id is None else f"{self.run_id}-{self.step_id}"


_invocation: ContextVar[Invocation | None] = ContextVar("fluvial_invocation", default=None)
_platform: ContextVar[Platform | None] = ContextVar("fluvial_platform", default=None)
step_metadata: ContextVar[Metadata | None] = ContextVar("fluvial_step", default=None)


def activate(invocation: Invocation | None, platform: Platform | None) -> None:
    """Say what runs in the current context (the instance calls this, in each invocation's task)."""
    _invocation.set(invocation)
    _platform.set(platform)


def current_invocation() -> Invocation | None:
    """Return the invocation that is running here, if one is; also inside workflow code."""
    loop = current_loop()
    if loop is not None:
        found: Invocation | None = loop.invocation
        return found
    return _invocation.get()


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
    """
    loop = current_loop()
    if loop is not None:
        return Metadata(run_id=loop.scope.run_id, workflow=loop.scope.workflow)
    found = step_metadata.get()
    if found is None:
        raise NotInWorkflowError("metadata() works in workflows and in steps that a run executes")
    return found


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
