"""Fluvial: durable workflows and serverless functions in plain Python."""

from fluvial.context import Invocation, Metadata, context, metadata
from fluvial.determinism import now, random, uuid4
from fluvial.errors import (
    DecryptionError,
    FatalError,
    FluvialError,
    HookConflictError,
    HookNotFoundError,
    InvalidRequestError,
    NotInInvocationError,
    NotInWorkflowError,
    RemoteError,
    RetryableError,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    RunTerminatedError,
    SerializationError,
    StartConflictError,
    StepFailedError,
    UnavailableError,
    UnresolvableStepError,
    WorkflowSandboxError,
)
from fluvial.hooks import Hook
from fluvial.idempotency import idempotent, next_idempotency_key
from fluvial.patches import patched
from fluvial.runs import Run, RunEvent, get_run, resume_hook, start
from fluvial.sleeping import sleep
from fluvial.step_settings import Backoff
from fluvial.steps import Step, step
from fluvial.workflows import Workflow, workflow

__all__ = [
    "Backoff",
    "DecryptionError",
    "FatalError",
    "FluvialError",
    "Hook",
    "HookConflictError",
    "HookNotFoundError",
    "InvalidRequestError",
    "Invocation",
    "Metadata",
    "NotInInvocationError",
    "NotInWorkflowError",
    "RemoteError",
    "RetryableError",
    "Run",
    "RunCancelledError",
    "RunEvent",
    "RunFailedError",
    "RunNotFoundError",
    "RunTerminatedError",
    "SerializationError",
    "StartConflictError",
    "Step",
    "StepFailedError",
    "UnavailableError",
    "UnresolvableStepError",
    "Workflow",
    "WorkflowSandboxError",
    "context",
    "get_run",
    "idempotent",
    "metadata",
    "next_idempotency_key",
    "now",
    "patched",
    "random",
    "resume_hook",
    "sleep",
    "start",
    "step",
    "uuid4",
    "workflow",
]
