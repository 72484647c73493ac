"""Answers to webhooks: what a workflow makes of `respond`, and what may leave for a sender.

They are stored as plain values, and are checked when they are made and once more when they are
sent: in between they were in the hands of user code.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from fluvial.errors import InvalidRequestError

Body = str | bytes | dict[str, Any] | list[Any]

MAX_ANSWER_BYTES: Final = 1024 * 1024
_MAX_HEADERS: Final = 64
_MAX_HEADER_BYTES: Final = 16 * 1024
_STATUS: Final = range(200, 600)
_NAME: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What belongs to the connection or to the platform, as for any response.
_RESERVED: Final = re.compile(
    r"connection|keep-alive|transfer-encoding|upgrade|trailer|proxy-connection|content-length|date"
    r"|x-fluvial-.*"
)
_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """A whole response."""

    status: int
    headers: tuple[tuple[str, str], ...]  # names in lower case
    body: bytes

    @classmethod
    def of(cls, body: Body, status: int, headers: Mapping[str, str]) -> WebhookAnswer:
        """Return an answer; the content-type is that of the body, unless it is given.

        Raises:
            InvalidRequestError: something like this cannot be sent.
        """
        content, content_type = _encoded(body)
        pairs = [(name.lower(), value) for name, value in headers.items()]
        if content and not any(name == "content-type" for name, _ in pairs):
            pairs.append(("content-type", content_type))
        return cls(status, tuple(pairs), content).checked()

    @classmethod
    def from_plain(cls, plain: object) -> WebhookAnswer:
        """Return the answer that `to_plain` made `plain` of.

        Raises:
            InvalidRequestError: it is none, or cannot be sent.
        """
        if not isinstance(plain, dict):
            raise InvalidRequestError("an answer is a map")
        fields = cast("dict[str, Any]", plain)
        status, headers, text = fields.get("status"), fields.get("headers"), fields.get("text")
        if not isinstance(status, int) or not isinstance(headers, list):
            raise InvalidRequestError("an answer has a status and headers")
        pairs = tuple(_pair(item) for item in cast("list[object]", headers))
        body = text.encode() if isinstance(text, str) else _from_base64(fields.get("base64"))
        return cls(status, pairs, body).checked()

    @property
    def text(self) -> str:
        """The body decoded as UTF-8."""
        return self.body.decode()

    def json(self) -> Any:
        """Return the body parsed as JSON."""
        return json.loads(self.body)

    def to_plain(self) -> dict[str, Any]:
        """Return JSON values, which people can read where the body is text."""
        plain: dict[str, Any] = {"status": self.status, "headers": [[*p] for p in self.headers]}
        try:
            return {**plain, "text": self.body.decode()}
        except UnicodeDecodeError:
            return {**plain, "base64": base64.b64encode(self.body).decode()}

    def head(self) -> bytes:
        """Return the status line and the headers, each with its line end."""
        pairs = [f"{name}: {value}" for name, value in self.headers]
        if self.status not in _BODILESS:
            pairs.append(f"content-length: {len(self.body)}")
        return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {self.status} ", *pairs)).encode(
            "latin-1"
        )

    def checked(self) -> WebhookAnswer:
        """Return it, if it can be sent.

        Raises:
            InvalidRequestError: it cannot.
        """
        if self.status not in _STATUS:
            raise InvalidRequestError(f"the status of an answer is 200 to 599, got {self.status}")
        if self.body and self.status in _BODILESS:
            raise InvalidRequestError(f"an answer of status {self.status} has no body")
        if len(self.body) > MAX_ANSWER_BYTES:
            raise InvalidRequestError(
                f"an answer has at most {MAX_ANSWER_BYTES} bytes, got {len(self.body)}"
            )
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if len(self.headers) > _MAX_HEADERS or size > _MAX_HEADER_BYTES:
            raise InvalidRequestError(
                f"an answer has at most {_MAX_HEADERS} headers of {_MAX_HEADER_BYTES} bytes"
            )
        for name, value in self.headers:
            if _NAME.fullmatch(name) is None or _RESERVED.fullmatch(name):
                raise InvalidRequestError(f"an answer cannot have a header {name!r}")
            if _VALUE.fullmatch(value) is None:
                raise InvalidRequestError(f"the header {name!r} has a character that none may have")
        return self


def _encoded(body: Body) -> tuple[bytes, str]:
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"the body of the answer is not JSON: {error}") from error
    return text.encode(), "application/json"


def _pair(item: object) -> tuple[str, str]:
    parts = cast("list[object]", item) if isinstance(item, list) else []
    if len(parts) != 2 or not all(isinstance(part, str) for part in parts):
        raise InvalidRequestError("a header of an answer is a name and a value")
    return cast("str", parts[0]), cast("str", parts[1])


def _from_base64(text: object) -> bytes:
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError("the body of an answer is not base64") from error
