"""Problems: every error that leaves the control API, as problem+json (RFC 9457).

A problem has a stable `type` and `code`, a `status`, a `title` that belongs to the code, and a
`detail` that says what is wrong here. Errors of `fluvial.errors` become problems by their code, so
a new error class needs one line in `_KINDS`, and an unknown one is an honest 500.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fluvial.errors import (
    FluvialError,
    SingletonError,
    StartConflictError,
    UnavailableError,
)
from fluvial_queue.cuts import NoFailedStepError, StepAmbiguousError, StepNotFoundError

MEDIA_TYPE: Final = "application/problem+json"
MAX_LISTED: Final = 100  # things that a problem lists
_TYPE_PREFIX: Final = "urn:fluvial:problem:"
# A hook opens when its run gets there, a store comes back: seconds, not minutes.
_RETRY_AFTER_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class _Kind:
    status: int
    title: str
    retry: bool = False


_KINDS: Final[Mapping[str, _Kind]] = {
    "invalid_request": _Kind(400, "The request is wrong"),
    "invalid_json": _Kind(400, "The body is not valid JSON"),
    "digest_mismatch": _Kind(400, "The body does not have the stated digest"),
    "unauthenticated": _Kind(401, "A valid bearer token is needed"),
    "access_denied": _Kind(403, "The token lacks the scope"),
    "not_found": _Kind(404, "There is no such resource"),
    "app_not_found": _Kind(404, "There is no such app"),
    "deployment_not_found": _Kind(404, "There is no such deployment"),
    "workflow_not_found": _Kind(404, "The deployment has no such workflow"),
    "cron_not_found": _Kind(404, "The app has no such cron"),
    "run_not_found": _Kind(404, "There is no such run"),
    "hook_not_found": _Kind(404, "There is no such open hook", retry=True),
    "method_not_allowed": _Kind(405, "The resource does not have this method"),
    "request_timeout": _Kind(408, "The request did not arrive in time"),
    "start_conflict": _Kind(409, "The key was used with another input"),
    "hook_conflict": _Kind(409, "Another run holds the hook's token"),
    "variable_not_found": _Kind(404, "The app has no such variable"),
    "variable_is_secret": _Kind(409, "A secret cannot be set as a variable"),
    "environment_conflict": _Kind(409, "The environment was changed by somebody else"),
    "key_not_found": _Kind(404, "The app has no such key"),
    "keys_frozen": _Kind(409, "The app's keys are frozen"),
    "key_in_use": _Kind(409, "The key is needed"),
    "key_is_current": _Kind(409, "The current key cannot be destroyed"),
    "kms_not_configured": _Kind(409, "No KMS command is configured"),
    "run_closed": _Kind(409, "The run has ended"),
    "step_not_found": _Kind(404, "The run has no such step"),
    "step_ambiguous": _Kind(409, "The run has several such steps"),
    "no_failed_step": _Kind(409, "No step of the run has failed"),
    "open_children": _Kind(409, "The run waits for child runs there"),
    "log_too_large": _Kind(409, "The run's log is too large for this"),
    "run_not_begun": _Kind(409, "The run has not begun"),
    "run_open": _Kind(409, "The run has not ended"),
    "ask_refused": _Kind(409, "The run refused what it was asked"),
    "ask_unanswered": _Kind(409, "The run will not answer"),
    "ask_timeout": _Kind(504, "The run has not answered in time"),
    "run_not_paused": _Kind(409, "The run is not paused"),
    "alias_not_found": _Kind(404, "The app has no such alias"),
    "alias_limit": _Kind(409, "The app has too many aliases"),
    "domain_not_found": _Kind(404, "The app has no such domain"),
    "domain_limit": _Kind(409, "The app has too many domains"),
    "domain_conflict": _Kind(409, "Another app has the domain"),
    "alias_conflict": _Kind(409, "The alias was moved by somebody else"),
    "deployment_retiring": _Kind(409, "The deployment is to be deleted"),
    "deployment_in_use": _Kind(409, "The deployment is needed"),
    "rollout_active": _Kind(409, "A rollout is under way"),
    "rollout_not_active": _Kind(409, "No such rollout is under way"),
    "rollout_impossible": _Kind(409, "There is nothing to roll out"),
    "nothing_deployed": _Kind(409, "The app has no production deployment"),
    "no_previous_deployment": _Kind(409, "There is no deployment to go back to"),
    "not_decryptable": _Kind(409, "The data cannot be decrypted"),
    "too_large": _Kind(413, "The body is too large"),
    "unsupported_media_type": _Kind(415, "The body has the wrong media type"),
    "manifest_invalid": _Kind(422, "The manifest is wrong"),
    "bundle_invalid": _Kind(422, "The bundle is wrong"),
    "no_entrypoint": _Kind(422, "The bundle has nothing to execute"),
    "cron_invalid": _Kind(422, "A cron of the bundle is wrong"),
    "build_failed": _Kind(422, "The bundle could not be built"),
    "import_failed": _Kind(422, "The bundle could not be imported"),
    "dependencies_failed": _Kind(422, "The bundle's dependencies could not be installed"),
    "singleton_alive": _Kind(409, "A run with this singleton is alive"),
    "payload_invalid": _Kind(422, "The payload does not fit the hook"),
    "not_serializable": _Kind(422, "A value cannot be stored"),
    "unknown_host": _Kind(421, "The request was meant for another server"),
    "too_many_waits": _Kind(429, "Too many requests are waiting", retry=True),
    "headers_too_large": _Kind(431, "The request's headers are too large"),
    "internal": _Kind(500, "The gateway failed"),
    "kms_failed": _Kind(502, "The KMS command failed"),
    "not_resealed": _Kind(502, "The deployment did not seal the data anew"),
    "not_revealed": _Kind(502, "The deployment did not decrypt the data"),
    "unavailable": _Kind(503, "The platform cannot answer now", retry=True),
    "keyring_unusable": _Kind(503, "The app's keyring cannot be used"),
    "builder_unavailable": _Kind(503, "The builder cannot answer now", retry=True),
    "store_full": _Kind(503, "The store is full", retry=True),
    "store_unavailable": _Kind(503, "The store cannot answer now", retry=True),
    "store_outcome_unknown": _Kind(503, "The store's answer was lost", retry=True),
    "disk_full": _Kind(507, "The disk is full"),
}


class ProblemError(FluvialError):
    """A request is refused, for a reason that has no class of its own in `fluvial.errors`.

    Args:
        code: a key of the table above; names status and title.
        detail: what is wrong here, and what to do.
        extra: further members of the problem document.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem_code = code
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class WorkflowNotFoundError(FluvialError, LookupError):
    """The pinned deployment has no workflow of this name; the message lists those it has."""

    code = "workflow_not_found"

    def __init__(self, workflow: str, deployment: str, known: list[str]) -> None:
        names = ", ".join(known) or "none"
        super().__init__(f"{deployment} has no workflow {workflow!r}; its workflows: {names}")
        self.known = known


class DeploymentRetiringError(FluvialError):
    """The deployment is to be deleted: no run starts on it or moves to it, and no alias either."""

    code = "deployment_retiring"

    def __init__(self, deployment: str) -> None:
        super().__init__(
            f"{deployment} is to be deleted: use another one, or `fluvial deployments keep "
            f"{deployment}` first"
        )


class RunNotPausedError(FluvialError):
    """The run goes on, so it cannot be moved to another deployment."""

    code = "run_not_paused"

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(
            f"{run_id} is {status}: only a paused run can be moved to another deployment"
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem document with its status and headers."""

    status: int
    members: dict[str, Any]
    headers: dict[str, str]

    def body(self) -> bytes:
        return json.dumps(self.members, ensure_ascii=False).encode("utf-8", "replace")


def problem_of(error: FluvialError) -> Problem:
    """Return the problem that `error` is told as."""
    if isinstance(error, ProblemError):
        return _problem(error.problem_code, str(error), error.extra, error.headers)
    extra: dict[str, Any] = {}
    if isinstance(error, WorkflowNotFoundError):
        extra["workflows"] = error.known
    if isinstance(error, (StepNotFoundError, StepAmbiguousError, NoFailedStepError)):
        listed = list(error.steps.items())[:MAX_LISTED]
        extra["steps"] = [{"id": step_id, "name": name} for step_id, name in listed]
    if isinstance(error, (SingletonError, StartConflictError)):
        extra["run_id"] = error.run_id
    if error.code not in _KINDS and isinstance(error, UnavailableError):
        return _problem("unavailable", str(error), extra, {})
    # Where the table does not know the code, its text may hold anything: it is not told.
    if error.code not in _KINDS:
        return _problem("internal", "an error without a public description", extra, {})
    return _problem(error.code, str(error), extra, {})


def internal_problem() -> Problem:
    """Return the problem for a defect; its details stand in the log only."""
    return _problem("internal", "the gateway's log has the traceback", {}, {})


def is_known(code: str) -> bool:
    """Tell whether `code` has a status and a title."""
    return code in _KINDS


def _problem(code: str, detail: str, extra: dict[str, Any], headers: dict[str, str]) -> Problem:
    kind = _KINDS[code]
    members = {
        "type": _TYPE_PREFIX + code,
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        **extra,
    }
    if kind.retry:
        headers = {"retry-after": str(_RETRY_AFTER_SECONDS), **headers}
    if kind.status == 401:
        headers = {"www-authenticate": 'Bearer realm="fluvial"', **headers}
    return Problem(kind.status, members, headers)
