"""Revealing: decrypting a run's data for a person who may read it.

The gateway cannot decrypt; an instance of the run's own deployment can, and one of the app's
production where that was deleted: they have the same keys. Each reveal is one
invocation, bounded in events, bytes, time and number, and leaves one line in the audit log that
says who read what of which run, and nothing of the data.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from fluvial.invocations import Revealed, RevealRequest
from fluvial_gateway.auth import Principal, Scope
from fluvial_gateway.invocations import (
    Answered,
    Invocations,
    Lost,
    Outcome,
    Unavailable,
    outcome_of,
)
from fluvial_gateway.problems import ProblemError
from fluvial_queue.contract import RunRecord

_LOG = logging.getLogger(__name__)
_AUDIT = logging.getLogger("fluvial_gateway.audit")

MAX_EVENTS: Final = 1000
MAX_BYTES: Final = 32 * 1024 * 1024  # half of what one frame may hold: texts are longer
_DEADLINE_SECONDS: Final = 30.0  # a cold start with heavy imports, and some
_CONCURRENT: Final = 8  # invocations under way: decrypting is work for a person, not for load
_ADMITTED: Final = 512  # with those that wait for their turn; as many may wait for results
_HELD_BYTES: Final = _CONCURRENT * MAX_BYTES  # of events, by all that are admitted


class Readers(Protocol):
    """Knows which deployments there are."""

    async def reader_of(self, app: str, deployment_id: str, /) -> str:
        """Return the deployment that reads the data of a run of this one."""
        ...


class Revealer:
    """Asks deployments to decrypt."""

    def __init__(
        self,
        invocations: Invocations,
        readers: Readers | None = None,
        *,
        deadline_seconds: float = _DEADLINE_SECONDS,
    ) -> None:
        self._invocations = invocations
        self._readers = readers  # None: a run's own deployment is never gone
        self._deadline_seconds = deadline_seconds
        self._turns = asyncio.Semaphore(_CONCURRENT)
        self._admitted = 0
        self._held_bytes = 0

    async def reveal(
        self, principal: Principal, run: RunRecord, events: Sequence[bytes]
    ) -> Sequence[Revealed]:
        """Return what each event holds; None where it carries no data.

        Raises:
            AccessDeniedError: the principal lacks `data:read`.
            ProblemError: too much at once, or the deployment did not do it.
        """
        principal.require(Scope.DATA_READ)
        size = _checked_size(events)
        if not events:
            return []
        if self._admitted >= _ADMITTED or self._held_bytes + size > _HELD_BYTES:
            raise ProblemError("too_many_waits", f"{self._admitted} reveals are under way already")
        _audit(principal, run, len(events))
        self._admitted += 1
        self._held_bytes += size
        try:
            async with self._turns:
                outcome = await self._invoke(run, events)
        finally:
            self._admitted -= 1
            self._held_bytes -= size
        return _texts(outcome, len(events))

    async def _invoke(self, run: RunRecord, events: Sequence[bytes]) -> Outcome:
        request = RevealRequest(
            run_id=run.run_id, app=run.app, workflow=run.workflow, events=events
        )
        reader = run.deployment
        if self._readers is not None:
            reader = await self._readers.reader_of(run.app, run.deployment)
        return await outcome_of(
            self._invocations,
            reader,
            request.to_frame_fields(),
            deadline_seconds=self._deadline_seconds,
        )


def readable(text: str) -> Any:
    """Return the JSON value that a revealed text renders, or the text where it is a `repr`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _audit(principal: Principal, run: RunRecord, events: int) -> None:
    _AUDIT.info(
        "data revealed",
        extra={
            "token_id": principal.token_id,
            "token_name": principal.name,
            "app": run.app,
            "run_id": run.run_id,
            "events": events,
        },
    )


def _checked_size(events: Sequence[bytes]) -> int:
    size = sum(len(event) for event in events)
    if len(events) > MAX_EVENTS or size > MAX_BYTES:
        raise ProblemError(
            "too_large",
            f"{len(events)} events of {size} bytes are too much to decrypt at once: "
            f"ask for at most {MAX_EVENTS} events of {MAX_BYTES} bytes together",
        )
    return size


def _texts(outcome: Outcome, expected: int) -> Sequence[Revealed]:
    match outcome:
        case Answered(answer=answer, texts=texts):
            if answer.outcome == "ok" and len(texts) == expected:
                return texts
            _LOG.warning(
                "an instance did not reveal",
                extra={"instance": outcome.instance, "outcome": answer.outcome},
            )
            raise ProblemError(
                "not_revealed", "the deployment answered without the data: see its log"
            )
        case Lost(reason=reason):
            raise ProblemError("not_revealed", f"the instance that decrypted ended: {reason}")
        case Unavailable(code=code, message=message, retryable=retryable):
            raise ProblemError(
                "unavailable" if retryable else "not_revealed",
                f"no instance could be asked to decrypt: {code}: {message}",
            )
