"""Checks of webhooks: what a *verify* invocation asks and answers.

Only who has the app's keys can look at a webhook's secrets, which are sealed into its opening. So
the gateway has an instance of the run's deployment compare the signature, before anything reaches
the run. The frames are those of `fluvial.invocations`; the answer's body is one text, what is wrong
with the signature, or nil.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from fluvial.codec import decode
from fluvial.errors import WireError
from fluvial.events import EventType, decode_event
from fluvial.invocations import Revealed, pack_events, unpack_events
from fluvial.webhook_requests import WebhookRequest
from fluvial.webhook_signatures import wrong_signature

if TYPE_CHECKING:
    from fluvial.encryption import AppKeys

VERIFY: Final = "verify"  # the kind of invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRequest:
    """Check the signature of a request to a webhook."""

    run_id: str
    app: str
    token: str
    opening: bytes  # the event HOOK_OPENED
    request: bytes  # sealed, as the run would get it

    def to_frame_fields(self) -> tuple[str, dict[str, Any], bytes]:
        meta = {"run": self.run_id, "app": self.app, "token": self.token}
        return VERIFY, meta, pack_events([self.opening, self.request])

    @classmethod
    def from_frame(cls, meta: dict[str, Any], body: bytes) -> VerifyRequest:
        opening, request = unpack_events(body, at_most=2)
        return cls(
            run_id=meta["run"],
            app=meta["app"],
            token=meta["token"],
            opening=opening,
            request=request,
        )


def verdict(request: VerifyRequest, keys: AppKeys) -> str | None:
    """Return what is wrong with a request's signature; None: nothing.

    Raises:
        DecryptionError, SerializationError, WireError: it cannot be told.
    """
    opening = decode_event(request.opening)
    run_keys = keys.for_run(request.run_id)
    if opening.type is not EventType.HOOK_OPENED or not opening.payload:
        raise WireError("a webhook with secrets is opened by an event that holds them")
    held = decode(run_keys.open(opening.payload, "hook_metadata", opening.id))
    received = decode(run_keys.open(request.request, "hook", request.token))
    if not isinstance(received, WebhookRequest):
        raise WireError("what came is not a request to a webhook")
    return wrong_signature(
        cast("list[str]", held["secrets"]),
        cast("Sequence[tuple[bytes, bytes]]", received.raw_headers),
        received.body,
        received.received_ms / 1000,
    )


def verdict_in(texts: Sequence[Revealed]) -> str | None:
    """Return the verdict that an answer's texts are.

    Raises:
        WireError: they are none.
    """
    if len(texts) != 1 or not (texts[0] is None or isinstance(texts[0], str)):
        raise WireError("the answer to a verification is not a verdict")
    return texts[0]
