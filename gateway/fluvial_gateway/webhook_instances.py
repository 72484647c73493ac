"""What the gateway has instances do for webhooks: it can neither check a signature nor read an
answer, as both need the app's keys.

The answer leaves the platform for the sender, by the workflow's own wish; so no person's right to
read data is asked for, and the audit log names it by another name.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from typing import Any, Final

from fluvial.errors import InvalidRequestError, WireError
from fluvial.invocations import Revealed, RevealRequest
from fluvial.webhook_answers import WebhookAnswer
from fluvial.webhook_checks import VerifyRequest, verdict_in
from fluvial_gateway.http_problems import BAD_RESPONSE
from fluvial_gateway.invocations import Answered, Invocations, outcome_of
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.webhook_exchanges import WebhookProblemError
from fluvial_queue.contract import RunRecord

_LOG = logging.getLogger(__name__)
_AUDIT = logging.getLogger("fluvial_gateway.audit")

_UNDER_WAY: Final = 16  # invocations of one app; what waits for its turn is bounded by the desk
_DEADLINE_SECONDS: Final = 30.0  # a cold start with heavy imports, and some


class WebhookInstances:
    """Asks deployments."""

    def __init__(
        self, invocations: Invocations, *, deadline_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        self._invocations = invocations
        self._deadline_seconds = deadline_seconds
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(_UNDER_WAY)
        )  # by app: a slow one makes no other wait

    async def verify(self, run: RunRecord, token: str, opening: bytes, sealed: bytes) -> str | None:
        """Return what is wrong with the signature of a request; None: nothing.

        Raises:
            ProblemError: no instance could tell.
        """
        request = VerifyRequest(
            run_id=run.run_id, app=run.app, token=token, opening=opening, request=sealed
        )
        texts = await self._ask(run, request.to_frame_fields())
        try:
            return verdict_in(texts)
        except WireError as error:
            raise _refusal(str(error)) from error

    async def answer(self, run: RunRecord, event: bytes) -> WebhookAnswer:
        """Return what a workflow has answered with HOOK_ANSWERED.

        Raises:
            ProblemError: no instance could tell.
            WebhookProblemError: it is no answer.
        """
        _AUDIT.info("webhook answered", extra={"app": run.app, "run_id": run.run_id})
        request = RevealRequest(
            run_id=run.run_id, app=run.app, workflow=run.workflow, events=[event]
        )
        texts = await self._ask(run, request.to_frame_fields())
        text = texts[0] if len(texts) == 1 else None
        if not isinstance(text, str):
            raise _refusal("an instance could not read the answer")
        try:
            return WebhookAnswer.from_plain(json.loads(text))
        except (InvalidRequestError, ValueError, RecursionError) as error:
            _LOG.warning("a webhook's answer is none", extra={"reason": str(error)})
            raise WebhookProblemError(BAD_RESPONSE) from error

    async def _ask(
        self, run: RunRecord, fields: tuple[str, dict[str, Any], bytes]
    ) -> list[Revealed]:
        async with self._turns[run.app]:
            outcome = await outcome_of(
                self._invocations, run.deployment, fields, deadline_seconds=self._deadline_seconds
            )
        if isinstance(outcome, Answered) and outcome.answer.outcome == "ok":
            return list(outcome.texts)
        raise _refusal(f"{run.deployment} gave no answer: {outcome}")


def _refusal(detail: str) -> ProblemError:
    return ProblemError("unavailable", detail)
