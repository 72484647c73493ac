"""What a plain handler takes and returns: `def handler(request: Request) -> Response`.

A handler may be sync or async, and may return something simpler than a `Response`:

    str, bytes                 a body: text/plain, application/octet-stream
    dict, list                 a JSON body
    (status, body)             any of the bodies above with a status
    (status, body, headers)    … and headers
    None                       204
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs


@dataclass(frozen=True, kw_only=True)
class Request:
    """An HTTP request with its whole body."""

    method: str
    path: str  # percent-decoded
    query_string: str = ""
    raw_headers: Sequence[Sequence[bytes]] = ()  # (name, value) pairs as they came
    body: bytes = b""

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; several of one name are joined by commas."""
        headers: dict[str, str] = {}
        for raw_name, raw_value in self.raw_headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    @cached_property
    def query(self) -> dict[str, str]:
        """The query's parameters; the last one wins where a name is repeated."""
        parsed = parse_qs(self.query_string, keep_blank_values=True)
        return {name: values[-1] for name, values in parsed.items()}

    @property
    def text(self) -> str:
        """The body decoded as UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """Return the body parsed as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler answers."""

    body: str | bytes | dict[str, Any] | list[Any] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
