"""Webhooks: hooks with a URL, which anybody outside can send requests to."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, TypeVar, overload

from fluvial.codec import decode
from fluvial.context import current_invocation
from fluvial.durations import Duration
from fluvial.errors import HookClosedError, SerializationError
from fluvial.hook_base import HookBase, read_payload
from fluvial.hook_operations import HookOperation, HookTerms
from fluvial.webhook_requests import WebhookRequest, answerable, valued, webhook_url
from fluvial.webhook_signatures import check_secrets

T = TypeVar("T")

_JSON: Final = b"j"
_TAKEN: Final = 202


class Webhook(HookBase[T]):
    """A durable wait for requests from outside. Await it once, or iterate over it.

        async with Webhook(Invoice) as paid:
            await order(customer, callback=paid.url)
            invoice = await paid

    The platform answers 202 as soon as the run will get the request; with `respond=True`, whoever
    sends waits for what the workflow answers:

        async with Webhook(respond=True) as endpoint:
            await publish(endpoint.url)
            async for request in endpoint:
                await request.respond({"path": request.path})

    Args:
        payload_type: what the body's JSON is; None: the request itself, whatever it holds.
        respond: the workflow answers each request itself.
        secret: secrets (`whsec_…`) or public keys (`whpk_…`) of Standard Webhooks, several while
            the sender changes its own. What is not signed by one of them is answered with 401, and
            the run hears nothing of it.
        metadata: a value for people who look at the hook; encrypted.
        timeout: after so long the webhook closes, and whoever waits gets a TimeoutError. What came
            before can still be taken.
    """

    @overload
    def __init__(
        self: Webhook[WebhookRequest],
        payload_type: None = None,
        *,
        respond: bool = False,
        secret: str | Sequence[str] | None = None,
        metadata: Any = None,
        timeout: Duration | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        payload_type: type[T],
        *,
        respond: bool = False,
        secret: str | Sequence[str] | None = None,
        metadata: Any = None,
        timeout: Duration | None = None,
    ) -> None: ...
    def __init__(
        self,
        payload_type: Any = None,
        *,
        respond: bool = False,
        secret: str | Sequence[str] | None = None,
        metadata: Any = None,
        timeout: Duration | None = None,
    ) -> None:
        sealed: dict[str, Any] = {} if metadata is None else {"metadata": metadata}
        if secret is not None:
            secrets = [secret] if isinstance(secret, str) else [*secret]
            check_secrets(secrets)
            sealed["secrets"] = secrets
        wanted = None if payload_type is WebhookRequest else payload_type
        super().__init__(wanted, sealed, timeout)
        self._responds = respond
        self._is_signed = secret is not None

    @property
    def url(self) -> str:
        """Where to send requests to, once the webhook is open. Who knows it may send.

        It stays as it was when the webhook was opened, even if the platform's address changes.
        """
        operation = self._opened()
        return webhook_url(str(operation.recorded["webhook"]["app_url"]), operation.token)

    def requests(self) -> WebhookRequests:
        """Return an iterator over the requests; their `value` is the body as the payload's type."""
        return WebhookRequests(self._opened(), responds=self._responds)

    async def _next(self) -> T:
        request = await next_request(self._opened(), responds=self._responds)
        if self._responds and self._payload_type is not None:
            await request.respond(status=_TAKEN)  # nobody else could
        payload: T = request.value
        return payload

    def _terms(self) -> HookTerms:
        here = current_invocation()
        about = {
            "app_url": "" if here is None else here.app_url,
            "respond": self._responds,
            "signed": self._is_signed,
        }
        return dataclasses.replace(
            super()._terms(),
            read=functools.partial(_read, self._payload_type),
            meta={"webhook": about},
        )


class WebhookRequests:
    """The requests to an open webhook, in the order of the log, until it is closed."""

    def __init__(self, operation: HookOperation, *, responds: bool) -> None:
        self._operation = operation
        self._responds = responds

    def __aiter__(self) -> AsyncIterator[WebhookRequest]:
        return self

    async def __anext__(self) -> WebhookRequest:
        try:
            return await next_request(self._operation, responds=self._responds)
        except HookClosedError:
            raise StopAsyncIteration from None


async def next_request(operation: HookOperation, *, responds: bool) -> WebhookRequest:
    """Return the next request to an open webhook.

    Raises:
        TimeoutError, HookClosedError: nothing more comes.
        SerializationError: its body is not what the webhook takes.
    """
    delivery = await operation.take()
    if delivery.error is not None:
        raise delivery.error
    request: WebhookRequest = delivery.value
    return answerable(request, delivery) if responds else request


def _read(wanted: Any, plaintext: bytes) -> WebhookRequest:
    """Return a request whose body is what the webhook takes.

    Raises:
        SerializationError: it is something else.
    """
    request = decode(plaintext, None, "payload")
    if not isinstance(request, WebhookRequest):
        raise SerializationError("payload", "is no request: send one to the webhook's URL")
    return (
        request if wanted is None else valued(request, read_payload(wanted, _JSON + request.body))
    )
