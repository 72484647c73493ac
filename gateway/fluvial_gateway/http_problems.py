"""What the data plane itself answers when it cannot hand out a function's response (RFC 9457)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial_gateway.invocations import Unavailable

_TYPE_PREFIX: Final = "urn:fluvial:problem:"

_AS_TOLD: Final = ""  # the message is the gateway's own, and holds nothing of the app's
# Outcomes of an invocation: status, title, and what is told to a stranger. The messages of import
# failures and the like name files and modules: they belong into the log and not into this answer.
_OUTCOMES: Final[dict[str, tuple[int, str, str]]] = {
    "overloaded": (503, "Too many requests wait", "too many requests already wait: try again"),
    "queue_timeout": (504, "No instance had room in time", "no instance had room: try again"),
    "capacity": (503, "No further instance can start", "no further instance can start: try again"),
    "shutting_down": (503, "The platform is stopping", "the platform is stopping: try again"),
    "unavailable": (503, "The platform cannot answer now", "try again"),
    "deployment_not_found": (404, "There is no such deployment", "it was deleted"),
    "import_failed": (502, "The function cannot be imported", "the app's log says why"),
    "bundle_missing": (502, "The function's code is gone", "deploy the app again"),
    "isolation_unavailable": (
        502,
        "The function cannot be isolated",
        "`fluvial doctor` says why",
    ),
    "start_failed": (502, "The function cannot be started", "the app's log says why"),
    "too_large": (431, "The request's head is too large", "it does not fit into a frame"),
    "instance_died": (502, "The function's instance died", _AS_TOLD),
    "function_timeout": (504, "The function took too long", "it was cancelled at max_duration"),
    "response_broken": (502, "The function's response broke", "the app's log says why"),
    "no_response": (502, "The function did not respond", "it ended without a response"),
    "cancelled": (503, "The invocation was cancelled", "try again"),
}
_RETRY_AFTER_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem+json answer."""

    status: int
    code: str
    detail: str
    title: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    def document(self, invocation: str | None) -> bytes:
        """Return the body."""
        members: dict[str, object] = {
            "type": _TYPE_PREFIX + self.code,
            "title": self.title or HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if invocation is not None:
            members["invocation"] = invocation
        return json.dumps(members).encode()


UNKNOWN_HOST: Final = Problem(
    status=404, code="host_not_found", detail="no app is registered under this host name"
)
TOO_MANY_CONNECTIONS: Final = Problem(
    status=503,
    code="too_many_connections",
    detail="too many clients are connected: try again",
    headers=(("retry-after", "1"),),
)
BAD_RESPONSE: Final = Problem(
    status=502, code="bad_response", detail="the function's response breaks the rules of HTTP"
)


class RefusedRequestError(InvalidRequestError):
    """A request that breaks the rules of HTTP, or our limits; the connection must close."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail, headers=headers)


def outcome_problem(reason: Unavailable) -> Problem:
    """Return what a client hears instead of a response."""
    status, title, detail = _OUTCOMES.get(reason.code, (502, "The function failed", reason.code))
    seconds = reason.retry_after_seconds
    if seconds is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = _RETRY_AFTER_SECONDS
    detail = detail or reason.message
    headers = () if seconds is None else (("retry-after", str(max(1, round(seconds)))),)
    return Problem(status=status, code=reason.code, detail=detail, title=title, headers=headers)
