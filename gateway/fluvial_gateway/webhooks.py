"""Webhooks: which run a request is for, whether it may have it, and what the sender is told.

A token alone is proof: it is made of 120 secret bits. Of one that is unknown nothing more is looked
up than of one that is known, and what is told does not depend on which runs exist.
"""

from __future__ import annotations

import json
import logging
import secrets
from dataclasses import dataclass
from typing import Any, Final, cast

from fluvial.codec import encode_uncompressed
from fluvial.errors import (
    FluvialError,
    HookNotFoundError,
    KeysFrozenError,
    RunClosedError,
    RunNotFoundError,
)
from fluvial.events import Event, decode_event
from fluvial.hook_operations import CLOSED
from fluvial.hook_tokens import is_secret, run_of_token
from fluvial.ids import partition_of
from fluvial.sealing import Binding
from fluvial.webhook_answers import WebhookAnswer
from fluvial.webhook_requests import WebhookRequest
from fluvial.webhook_signatures import message_id
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.hook_answers import Answered, HookAnswers
from fluvial_gateway.hooks import Hooks, check_fits
from fluvial_gateway.http_problems import Problem
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Runs, sealed_for
from fluvial_gateway.webhook_exchanges import (
    NOT_FOUND,
    Accepted,
    WebhookCall,
    WebhookProblemError,
)
from fluvial_gateway.webhook_instances import WebhookInstances
from fluvial_queue.contract import RunRecord
from fluvial_queue.hook_contract import OpenHook

_LOG = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 60.0  # what most senders wait at most, and some
_ACCEPTED: Final = WebhookAnswer(202, (), b"")
_GONE: Final = Problem(status=410, code="webhook_gone", detail="the webhook is closed")
_FROZEN: Final = Problem(
    status=503, code="keys_frozen", detail="the app's keys are frozen: nothing is taken in now"
)
_UNAVAILABLE: Final = Problem(
    status=503,
    code="unavailable",
    detail="the platform cannot take this in now: try again",
    headers=(("retry-after", "1"),),
)
_LATE: Final = Problem(
    status=504,
    code="webhook_timeout",
    detail=f"the workflow has the request, and has not answered within {ANSWER_SECONDS:g} seconds",
)
_SILENT: Final = Problem(
    status=502, code="webhook_unanswered", detail="the run has ended without an answer"
)


@dataclass(frozen=True, slots=True)
class _Found:
    """An open webhook."""

    record: RunRecord
    hook: OpenHook
    opening: bytes  # its event
    meta: dict[str, Any]  # what it says of itself

    @property
    def is_signed(self) -> bool:
        return self.meta.get("signed") is True

    @property
    def is_answered(self) -> bool:
        return self.meta.get("respond") is True


class Webhooks:
    """The open webhooks of all apps' runs; a `WebhookReceiver`."""

    def __init__(
        self,
        runs: Runs,
        hooks: Hooks,
        catalogue: Catalogue,
        answers: HookAnswers,
        instances: WebhookInstances,
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._runs = runs
        self._hooks = hooks
        self._catalogue = catalogue
        self._answers = answers
        self._instances = instances
        self._answer_seconds = answer_seconds

    async def accept(self, call: WebhookCall) -> Accepted:
        """Hand a request to the run that waits for it.

        Raises:
            WebhookProblemError: it is refused.
        """
        try:
            return await self._accept(call)
        except (HookNotFoundError, RunClosedError, RunNotFoundError):
            raise WebhookProblemError(_GONE) from None  # since it was found
        except KeysFrozenError:
            raise WebhookProblemError(_FROZEN) from None
        except ProblemError as error:
            raise WebhookProblemError(_told(error)) from None
        except FluvialError as error:
            _LOG.warning("a request to a webhook was not taken", extra={"reason": str(error)})
            raise WebhookProblemError(_UNAVAILABLE) from None

    async def answer(self, accepted: Accepted) -> WebhookAnswer:
        """Return what the sender is told.

        Raises:
            WebhookProblemError: there is no answer.
        """
        if not accepted.is_answered:
            return _ACCEPTED
        try:
            return await self._answer(accepted)
        except RunNotFoundError:
            raise WebhookProblemError(_SILENT) from None
        except FluvialError as error:
            _LOG.warning("a webhook's answer was not got", extra={"reason": str(error)})
            raise WebhookProblemError(_UNAVAILABLE) from None

    async def _accept(self, call: WebhookCall) -> Accepted:
        found = await self._find(call.app, call.token)
        body = await call.body()
        sender_id = message_id(call.headers)
        resume_id = sender_id or secrets.token_hex(16)
        request = WebhookRequest(
            id=resume_id,
            method=call.method,
            path=call.path,
            query_string=call.query,
            raw_headers=call.headers,
            body=body,
            received_ms=call.received_ms,
        )
        app = await self._catalogue.app(call.app)
        binding = Binding(call.app, found.record.run_id, "hook", call.token)
        sealed = sealed_for(app, encode_uncompressed(request), binding)
        if found.is_signed:
            await self._verify(found, call.token, sealed)
        _check_body(found.opening, body)
        resumed = await self._hooks.deliver(
            found.record, call.token, found.hook, sealed, resume_id, asks=found.is_answered
        )
        return Accepted(
            run_id=found.record.run_id,
            token=call.token,
            resume_id=resume_id,
            position=max(found.hook.position, resumed.position),
            is_answered=found.is_answered,
        )

    async def _find(self, app: str, token: str) -> _Found:
        run_id = run_of_token(token) if is_secret(token) else None
        if run_id is None or partition_of(run_id) >= self._runs.partitions:
            raise WebhookProblemError(NOT_FOUND)
        hook = await self._hooks.standing(run_id, token)
        if hook is None:
            raise WebhookProblemError(NOT_FOUND)
        record = await self._runs.get(run_id)
        if record.app != app:
            raise WebhookProblemError(NOT_FOUND)
        if not isinstance(hook, OpenHook):
            raise WebhookProblemError(_GONE)
        encoded = await self._runs.events(run_id, start=hook.position, limit=1)
        if not encoded:
            raise WebhookProblemError(NOT_FOUND)
        meta = decode_event(encoded[0]).meta.get("webhook")
        if not isinstance(meta, dict):
            raise WebhookProblemError(NOT_FOUND)  # a hook that is not for the world outside
        return _Found(record, hook, encoded[0], cast("dict[str, Any]", meta))

    async def _verify(self, found: _Found, token: str, sealed: bytes) -> None:
        wrong = await self._instances.verify(found.record, token, found.opening, sealed)
        if wrong is not None:
            raise WebhookProblemError(
                Problem(
                    status=401,
                    code="webhook_signature",
                    detail=wrong,
                    headers=(("www-authenticate", "Standard-Webhooks"),),
                )
            )

    async def _answer(self, accepted: Accepted) -> WebhookAnswer:
        told = await self._answers.wait(
            accepted.run_id,
            accepted.token,
            accepted.resume_id,
            start=accepted.position,
            seconds=self._answer_seconds,
        )
        if not isinstance(told, Answered):
            raise WebhookProblemError(_SILENT if told.is_over else _LATE)
        if told.why == CLOSED:
            raise WebhookProblemError(_GONE)
        if not told.is_ok:
            raise WebhookProblemError(_misfit("the request is not what the webhook takes"))
        return await self._instances.answer(await self._runs.get(accepted.run_id), told.event)


def _check_body(opening: bytes, body: bytes) -> None:
    """Refuse a body that is not what the webhook takes, as far as its opening tells."""
    event: Event = decode_event(opening)
    if event.meta.get("schema") is None:
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise WebhookProblemError(_misfit("the body is not JSON")) from None
    check_fits(event, value)


def _misfit(detail: str) -> Problem:
    return Problem(status=422, code="payload_invalid", detail=detail)


def _told(error: ProblemError) -> Problem:
    if error.problem_code == "payload_invalid":
        return _misfit(str(error))
    _LOG.warning("a request to a webhook was not taken", extra={"reason": str(error)})
    return _UNAVAILABLE
