"""Operations: the table from which routes, checks and the OpenAPI document are all made.

An `Operation` declares everything that is checked before its handler runs: the scopes (one of them
suffices, `admin` always does), the parameters and the body. A handler gets a `Call` whose values
have been checked against that declaration, so it holds no parsing of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response

from fluvial_gateway.auth import Principal, Scope
from fluvial_gateway.control.schemas import Schema

Method = Literal["GET", "POST", "DELETE"]
Place = Literal["path", "query", "header"]
DONE: Final = "ok"  # what the audit log says of a call, if not the code of its problem
INTERRUPTED: Final = "interrupted"  # nobody waited for its end: it may have been done
DEFAULT_BODY_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value in the path, the query or a header."""

    name: str
    place: Place
    schema: Schema
    description: str
    required: bool = False
    is_secret: bool = False  # whoever knows it may do something with it: it stands in no log


@dataclass(frozen=True, slots=True)
class Body:
    """A JSON body. `optional`: no body at all is the same as `{}`."""

    schema: Schema
    limit_bytes: int = DEFAULT_BODY_BYTES
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that the handler reads itself, as a stream of at most `limit_bytes`."""

    media_type: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that an operation may give: its meaning, and its schema where it has a body."""

    description: str
    schema: Schema | None = None
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request whose declared parts have been checked."""

    request: Request
    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, Any]
    headers: Mapping[str, Any]
    body: Any = None
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    def note(self, **facts: Any) -> None:
        """Add to what the audit log says of this call: ids and counts, never data or secrets."""
        self.notes.update(facts)


Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: Method
    path: str
    name: str
    summary: str
    handler: Handler
    scopes: tuple[Scope, ...]  # () = public
    replies: Mapping[int, Reply]
    parameters: tuple[Parameter, ...] = ()
    body: Body | Upload | None = None
    description: str = ""
    problems: tuple[str, ...] = field(default=())  # codes besides those that every operation has

    @property
    def is_audited(self) -> bool:
        """Whether each call of it leaves a line in the audit log."""
        return self.method != "GET"

    def placed(self, place: Place) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.place == place]
