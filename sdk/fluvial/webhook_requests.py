"""Requests to webhooks: how the data plane hands them to a run, and what the workflow sees.

A webhook's URL is that of its app, HOOKS_PATH and the hook's token; what a sender adds behind it
is the request's path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

from fluvial.codec import encode
from fluvial.errors import InvalidRequestError
from fluvial.http import Request
from fluvial.webhook_answers import Body, WebhookAnswer

HOOKS_PATH: Final = "/.well-known/fluvial/hooks/"
MAX_BODY_BYTES: Final = 1024 * 1024


def webhook_url(app_url: str, token: str) -> str:
    """Return the URL of a webhook."""
    return f"{app_url}{HOOKS_PATH}{token}"


class Reception(Protocol):
    """Whoever waits for the answer to a request."""

    def answer(self, plaintext: bytes, *, ok: bool) -> None: ...


@dataclass(frozen=True, kw_only=True)
class WebhookRequest(Request):
    """A request to a webhook. Its `path` is what follows the webhook's URL, mostly nothing."""

    id: str  # its webhook-id, which a sender keeps when it sends again; or one made for it
    received_ms: int  # when the platform had it, as Unix time in milliseconds

    @cached_property
    def value(self) -> Any:
        """The body, as the type that the webhook takes; in a step, the request itself."""
        return self

    @cached_property
    def _reception(self) -> Reception | None:
        """A cached property, as those are not stored with a value."""
        return None

    async def respond(
        self,
        body: Body = b"",
        *,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer the sender, once; a str is sent as text, a dict or a list as JSON.

        Raises:
            InvalidRequestError: it was answered before, or is not to be answered by the workflow
                (`Webhook(respond=True)`), or nothing like this can be sent.
        """
        if self._reception is None:
            raise InvalidRequestError(
                "this request is not answered here: the workflow that takes it from a"
                " Webhook(respond=True) answers it"
            )
        answer = WebhookAnswer.of(body, status, headers or {})
        self._reception.answer(encode(answer.to_plain(), "answer"), ok=True)


def valued(request: WebhookRequest, value: Any) -> WebhookRequest:
    """Say what a request's body is."""
    request.__dict__["value"] = value
    return request


def answerable(request: WebhookRequest, reception: Reception) -> WebhookRequest:
    """Let the workflow answer a request."""
    request.__dict__["_reception"] = reception
    return request
