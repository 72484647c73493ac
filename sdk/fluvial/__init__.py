"""Fluvial: durable workflows and serverless functions in plain Python."""

from fluvial.annotations import publish, set_tags
from fluvial.background import wait_until
from fluvial.children import ChildRun
from fluvial.context import Invocation, Metadata, context, metadata
from fluvial.continuing import continue_as_new
from fluvial.crons import Cron, Tick
from fluvial.determinism import now, random, uuid4
from fluvial.errors import (
    AskRefusedError,
    AskUnansweredError,
    CronError,
    DecryptionError,
    FatalError,
    FluvialError,
    HookClosedError,
    HookConflictError,
    HookNotFoundError,
    InvalidRequestError,
    KeyDestroyedError,
    KeyMissingError,
    KeysFrozenError,
    NotInInvocationError,
    NotInWorkflowError,
    RemoteError,
    RetryableError,
    RunCancelledError,
    RunClosedError,
    RunFailedError,
    RunNotFoundError,
    RunTerminatedError,
    SerializationError,
    StartConflictError,
    StepCrashedError,
    StepFailedError,
    StepInterruptedError,
    StreamClosedError,
    StreamFullError,
    UnavailableError,
    UnresolvableStepError,
    WorkflowSandboxError,
)
from fluvial.group_errors import CompensationFailedError, MapFailedError
from fluvial.heartbeats import heartbeat
from fluvial.hook_requests import Request
from fluvial.hooks import Hook
from fluvial.idempotency import idempotent, next_idempotency_key
from fluvial.mapping import map  # noqa: A004 - its name everywhere
from fluvial.options import StartOptions
from fluvial.patches import patched
from fluvial.run_lists import list_runs
from fluvial.runs import Run, RunEvent, get_run, resume_hook
from fluvial.saga import Saga
from fluvial.serializers import register_serializable, serializable
from fluvial.sleeping import sleep
from fluvial.snapshots import register_after_restore, register_before_snapshot
from fluvial.starting import execute, start
from fluvial.step_settings import Backoff
from fluvial.steps import Step, step
from fluvial.stream_reading import StreamChunk, StreamInfo, StreamReader, StreamReset
from fluvial.stream_writing import BlockingStreamWriter, StreamWriter
from fluvial.streams import blocking_stream, stream
from fluvial.webhook_requests import WebhookRequest
from fluvial.webhooks import Webhook
from fluvial.workflows import Workflow, workflow

__all__ = [
    "AskRefusedError",
    "AskUnansweredError",
    "Backoff",
    "BlockingStreamWriter",
    "ChildRun",
    "CompensationFailedError",
    "Cron",
    "CronError",
    "DecryptionError",
    "FatalError",
    "FluvialError",
    "Hook",
    "HookClosedError",
    "HookConflictError",
    "HookNotFoundError",
    "InvalidRequestError",
    "Invocation",
    "KeyDestroyedError",
    "KeyMissingError",
    "KeysFrozenError",
    "MapFailedError",
    "Metadata",
    "NotInInvocationError",
    "NotInWorkflowError",
    "RemoteError",
    "Request",
    "RetryableError",
    "Run",
    "RunCancelledError",
    "RunClosedError",
    "RunEvent",
    "RunFailedError",
    "RunNotFoundError",
    "RunTerminatedError",
    "Saga",
    "SerializationError",
    "StartConflictError",
    "StartOptions",
    "Step",
    "StepCrashedError",
    "StepFailedError",
    "StepInterruptedError",
    "StreamChunk",
    "StreamClosedError",
    "StreamFullError",
    "StreamInfo",
    "StreamReader",
    "StreamReset",
    "StreamWriter",
    "Tick",
    "UnavailableError",
    "UnresolvableStepError",
    "Webhook",
    "WebhookRequest",
    "Workflow",
    "WorkflowSandboxError",
    "blocking_stream",
    "context",
    "continue_as_new",
    "execute",
    "get_run",
    "heartbeat",
    "idempotent",
    "list_runs",
    "map",
    "metadata",
    "next_idempotency_key",
    "now",
    "patched",
    "publish",
    "random",
    "register_after_restore",
    "register_before_snapshot",
    "register_serializable",
    "resume_hook",
    "serializable",
    "set_tags",
    "sleep",
    "start",
    "step",
    "stream",
    "uuid4",
    "wait_until",
    "workflow",
]
