"""Every error that Fluvial raises on purpose.

FluvialError
├── FatalError              a step failed for good: never retried
├── RetryableError          a step failed for now: retried after `retry_after`
├── SerializationError      a value cannot cross the boundary (also TypeError)
├── DecryptionError         a sealed value was altered, moved, or its key is gone
│   ├── KeyMissingError     the app's keyring has no such key
│   └── KeyDestroyedError   the key was destroyed on purpose
├── KeysFrozenError         the app's keys are frozen: they open, and seal nothing
├── NondeterminismError     a replay asked for something else than the log recorded
├── WorkflowSandboxError    workflow code tried I/O, a thread or a real clock (also RuntimeError)
├── NotInWorkflowError      a durable wait was used outside a workflow (also RuntimeError)
├── NotInInvocationError    the platform was used where it serves nothing (also RuntimeError)
├── UnresolvableStepError   a step that no other process would find was called (also RuntimeError)
├── StepFailedError         seen by a workflow: a step used up its attempts
├── StepCrashedError        its cause, where the process of an isolated step has ended
├── StepInterruptedError    its cause, where a step that runs at most once was cut off
├── RemoteError             stands for an error whose class is not rebuilt on this side
├── RunFailedError          seen by a caller: the run ended without a result
│   ├── RunCancelledError
│   └── RunTerminatedError
├── RunNotFoundError        (also LookupError)
├── RunClosedError          the run has ended, so nothing can be sent to it
├── HookNotFoundError       (also LookupError)
├── HookConflictError       another run holds the hook's token
├── AskRefusedError         seen by whoever asked a run: it refused
├── AskUnansweredError      seen by whoever asked a run: it will not answer
├── StreamClosedError       a stream takes no more: it was closed, or its run or step has ended
├── StreamFullError         a run's streams hold as much as they may
├── StartConflictError      the same key was started with another input
├── SingletonError          a run with this singleton is alive
├── ManifestError           a manifest is wrong (also ValueError)
│   └── NoEntrypointError   a bundle has nothing to execute
├── BundleError             a bundle is wrong or hostile (also ValueError)
│   └── BundleTooLargeError a bundle is above a limit
├── WireError               a frame broke the protocol (also ValueError)
├── InvalidRequestError     a caller's argument is wrong (also ValueError)
│   ├── HookClosedError     a hook was waited for that is closed
│   └── CronError           a cron's declaration is wrong
├── AccessDeniedError       a token is missing or lacks a scope (also PermissionError)
├── UnavailableError        the platform cannot answer now: try again (also ConnectionError)
├── in `fluvial.group_errors`, also ExceptionGroups
│   ├── MapFailedError      more items of a `map` failed than is tolerated
│   └── CompensationFailedError  a Saga could not undo everything
└── in `fluvial.testing`
    ├── StuckError          what a test waits for does not happen (also AssertionError)
    ├── CrashPointError     a fault changes what a scenario comes to (also AssertionError)
    └── EngineNotFoundError no engine of the test kit is installed (also ImportError)

Each class has a stable `code` (used in problem+json and in the command line's `--json`) and says
through `retryable` whether the same call may succeed later.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from fluvial.spans import Duration, parse_seconds
from fluvial.unguarded import time_ns


class FluvialError(Exception):
    """The root of all errors that Fluvial raises on purpose."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    only_here: ClassVar[frozenset[str]] = frozenset()  # attributes that cross no boundary


class FatalError(FluvialError):
    """Raise it in a step to fail the step for good, whatever its `retries` say."""

    code = "fatal"


class RetryableError(FluvialError):
    """Raise it in a step to have it tried again after a chosen delay.

    `retry_after` is a duration ("30s", 30, a timedelta) or the aware datetime of the next attempt,
    as a server's Retry-After header says it; one that has passed means at once.
    """

    code = "retryable"
    retryable = True

    def __init__(self, message: str = "", *, retry_after: Duration | datetime = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = _seconds_until(retry_after)


class SerializationError(FluvialError, TypeError):
    """A value cannot be encoded; `path` names the offending part, e.g. `args[0].client`."""

    code = "not_serializable"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class DecryptionError(FluvialError):
    """A sealed value was altered, moved to another place, or its key is not here."""

    code = "not_decryptable"


class KeyMissingError(DecryptionError):
    """The app's keyring has no key of this id: the key file was lost, or an old copy put back."""

    code = "key_missing"

    def __init__(self, app: str, key_id: str) -> None:
        super().__init__(
            f"the keyring of app {app} has no key {key_id!r}: put back the key file that had it"
        )
        self.key_id = key_id


class KeyDestroyedError(DecryptionError):
    """The key was destroyed on purpose; what it sealed is unreadable for ever."""

    code = "key_destroyed"

    def __init__(self, app: str, key_id: str, destroyed_ms: int) -> None:
        at = datetime.fromtimestamp(destroyed_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        super().__init__(
            f"the key {key_id!r} of app {app} was destroyed at {at}: what it sealed is unreadable"
            " for ever"
        )
        self.key_id = key_id
        self.destroyed_ms = destroyed_ms


class KeysFrozenError(FluvialError):
    """The app's keys are frozen: they open what they sealed, and seal nothing."""

    code = "keys_frozen"

    def __init__(self, app: str) -> None:
        super().__init__(
            f"the keys of app {app} are frozen: nothing new is sealed;"
            f" `fluvial keys thaw {app}` ends that"
        )


class NondeterminismError(FluvialError):
    """A replay asked for something else than what the event log recorded."""

    code = "nondeterminism"


class WorkflowSandboxError(FluvialError, RuntimeError):
    """Workflow code tried I/O, a thread, a subprocess or a real clock: move it into a step."""

    code = "workflow_sandbox"


class NotInWorkflowError(FluvialError, RuntimeError):
    """A durable wait was used outside a workflow."""

    code = "not_in_workflow"


class NotInInvocationError(FluvialError, RuntimeError):
    """The platform was used where it is not there: outside an invocation of a deployed function."""

    code = "not_in_invocation"


class UnresolvableStepError(FluvialError, RuntimeError):
    """A workflow called a step that another process would not find, or would mistake."""

    code = "step_unresolvable"

    def __init__(self, step: str, place: str, problem: str, fix: str) -> None:
        super().__init__(f"step {step!r} ({place}) {problem}: {fix}")
        self.step = step
        self.place = place


class StepFailedError(FluvialError):
    """A step used up its attempts; `__cause__` is the last attempt's error where it decodes.

    `failure` says how, as a code: `exception`, `timeout`, `heartbeat`, `deadline`, `not_retried`,
    `interrupted`, `crashed`, or the code of the error that ended it (`fatal`,
    `not_serializable`, …).
    """

    code = "step_failed"

    def __init__(
        self, step: str, attempts: int, reason: str, *, failure: str = "exception"
    ) -> None:
        super().__init__(f"step {step} failed after {attempts} attempt(s): {reason}")
        self.step = step
        self.attempts = attempts
        self.reason = reason
        self.failure = failure


class StepCrashedError(FluvialError):
    """The process of an isolated step has ended before its body did."""

    code = "step_crashed"

    def __init__(self, step: str, how: str) -> None:
        super().__init__(f"the process of step {step} has ended: {how}")
        self.step = step
        self.how = how


class StepInterruptedError(FluvialError):
    """A step that runs at most once was cut off: whether it has done its work is not known."""

    code = "step_interrupted"

    def __init__(self, step: str, why: str) -> None:
        super().__init__(
            f"an execution of step {step} was cut off ({why}); it is not repeated, and may or may"
            " not have done its work"
        )
        self.step = step
        self.why = why


class RemoteError(FluvialError):
    """Stands for an error whose class is not rebuilt on this side; a note has its traceback."""

    code = "remote"

    def __init__(self, type_name: str, text: str) -> None:
        super().__init__(f"{type_name}: {text}" if text else type_name)
        self.type_name = type_name
        self.text = text


class RunFailedError(FluvialError):
    """A run ended without a result."""

    code = "run_failed"

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} {reason}")
        self.run_id = run_id
        self.reason = reason


class RunCancelledError(RunFailedError):
    """A run was cancelled and has finished its clean-up."""

    code = "run_cancelled"


class RunTerminatedError(RunFailedError):
    """A run was terminated without clean-up."""

    code = "run_terminated"


class RunNotFoundError(FluvialError, LookupError):
    """No run has this id (or it has expired)."""

    code = "run_not_found"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"no run {run_id!r}: it never existed or its retention is over")
        self.run_id = run_id


class RunClosedError(FluvialError):
    """The run has ended, so nothing can be sent to it."""

    code = "run_closed"

    def __init__(self, run_id: str) -> None:
        super().__init__(f"{run_id} has ended: a terminal state is final")
        self.run_id = run_id


class HookNotFoundError(FluvialError, LookupError):
    """No open hook has this token, or the run `run_id` has none of this name."""

    code = "hook_not_found"

    def __init__(self, token: str, run_id: str = "") -> None:
        which = f"{run_id} has no open hook {token!r}" if run_id else _no_open_hook(token)
        super().__init__(f"{which}: it is not open yet, was closed, or never was")
        self.token = token


def _no_open_hook(token: str) -> str:
    return f"no open hook has the token {token!r}"


class HookConflictError(FluvialError):
    """Another run holds the hook's token; `run_id` says which, where that is known."""

    code = "hook_conflict"

    def __init__(self, token: str, run_id: str = "") -> None:
        super().__init__(f"the hook token {token!r} is held by {run_id or 'another run or hook'}")
        self.token = token
        self.run_id = run_id


class AskRefusedError(FluvialError):
    """A run refused what it was asked: its workflow did, or what was sent does not fit."""

    code = "ask_refused"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the run's hook {name!r} refused: {reason}")
        self.name = name
        self.reason = reason


class AskUnansweredError(FluvialError):
    """A run was asked and will not answer: it has ended, or has closed the hook."""

    code = "ask_unanswered"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"the run's hook {name!r} will not answer: {why}")
        self.name = name
        self.why = why


class StreamClosedError(FluvialError):
    """A stream takes no more: it was closed, its run or step has ended, or another execution of
    the step has taken over."""

    code = "stream_closed"


class StreamFullError(FluvialError):
    """A run's streams hold as many bytes, or are as many, as they may."""

    code = "stream_full"


class StartConflictError(FluvialError):
    """A run with the same key exists and was started with another input."""

    code = "start_conflict"

    def __init__(self, key: str, run_id: str) -> None:
        super().__init__(f"key {key!r} already started {run_id} with another input")
        self.key = key
        self.run_id = run_id


class SingletonError(FluvialError):
    """A run of the app with the same `singleton` is alive, and the start was to be refused then."""

    code = "singleton_alive"

    def __init__(self, singleton: str, run_id: str) -> None:
        super().__init__(f"singleton {singleton!r} is alive as {run_id}")
        self.singleton = singleton
        self.run_id = run_id


class ManifestError(FluvialError, ValueError):
    """A manifest is wrong; `where` names the file and key."""

    code = "manifest_invalid"

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


class NoEntrypointError(ManifestError):
    """A bundle has neither an HTTP app nor workflows."""

    code = "no_entrypoint"


class BundleError(FluvialError, ValueError):
    """A bundle is wrong, too large, or hostile."""

    code = "bundle_invalid"


class BundleTooLargeError(BundleError):
    """A bundle is above a limit; the message names the limit."""

    code = "too_large"


class WireError(FluvialError, ValueError):
    """A frame broke the protocol; the connection that carried it must be closed."""

    code = "wire"


class InvalidRequestError(FluvialError, ValueError):
    """A caller's argument is wrong."""

    code = "invalid_request"


class HookClosedError(InvalidRequestError):
    """A hook was waited for that its workflow has closed."""

    code = "hook_closed"

    def __init__(self, token: str) -> None:
        super().__init__(f"the hook {token!r} is closed: nothing comes any more")
        self.token = token


class CronError(InvalidRequestError):
    """A cron's declaration is wrong; `where` names its field."""

    code = "cron_invalid"

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"cron: {where} {reason}")
        self.where = where
        self.reason = reason


class AccessDeniedError(FluvialError, PermissionError):
    """A token is missing, unknown, or lacks the scope that the call needs."""

    code = "access_denied"


class UnavailableError(FluvialError, ConnectionError):
    """The platform cannot answer now; the same call may succeed later."""

    code = "unavailable"
    retryable = True


def _seconds_until(moment: Duration | datetime) -> float:
    try:
        if not isinstance(moment, datetime):
            return parse_seconds(moment, "retry_after")
        if moment.tzinfo is None:
            raise ValueError(f"retry_after needs a datetime with a time zone, got {moment!r}")
        return parse_seconds(max(0.0, moment.timestamp() - time_ns() / 1e9), "retry_after")
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
