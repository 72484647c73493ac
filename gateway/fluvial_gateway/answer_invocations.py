"""Turns, steps, reveals and checks under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from fluvial.checks import CHECK
from fluvial.errors import WireError
from fluvial.invocations import (
    MAX_PROGRESS_BYTES,
    MAX_REASON_CHARACTERS,
    OUTCOMES,
    Answer,
    report_seconds,
    unpack_revealed,
)
from fluvial.invocations import Outcome as AnswerOutcome
from fluvial.manifest import DeploymentSpec
from fluvial.webhook_checks import VERIFY
from fluvial_gateway.deadlines import NEVER
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Answered, Lost, Outcome, Subject, Unavailable
from fluvial_gateway.link_slots import AnswerSlot
from fluvial_gateway.pool_contract import PoolLimits
from fluvial_gateway.pooled_invocations import InvocationContext, PooledInvocation
from fluvial_gateway.pools import InstancePool

logger = logging.getLogger(__name__)

_SILENT: Final = "heartbeat"

_TOLD_IN_TEXTS: Final = frozenset({"reveal", CHECK, VERIFY})


class AnswerInvocation(PooledInvocation):
    """One INVOKE until its ANSWER; an `InvocationHandle` for the dispatcher."""

    # Defaults of the class: only steps that beat change them.
    _progress = b""
    _is_silent = False

    def __init__(
        self,
        pool: InstancePool,
        context: InvocationContext,
        fields: tuple[str, dict[str, Any], bytes],
        done: Callable[[Outcome], None],
        *,
        prefer: str | None,
        seconds: float,
        subject: Subject | None = None,
        heartbeat_ms: int = 0,
    ) -> None:
        self._seconds = seconds
        self._silence_seconds = _silence_seconds(heartbeat_ms, context.limits)
        self._must_end_at = NEVER
        self._queue_deadline = context.deadlines.clock() + seconds
        super().__init__(pool, context, self._queue_deadline)
        self.prefer = prefer
        self._fields = fields
        self._done = done
        self._subject = subject

    @property
    def instance(self) -> str | None:
        """The instance that has it now; None while it waits."""
        return self.instance_used.id if self._slot and self.instance_used else None

    def answered(self, outcome: str, meta: dict[str, Any], cpu_us: int, body: bytes) -> None:
        """Hand on the answer; a malformed one counts as none and costs the instance its link."""
        instance = self._finish()
        try:
            told: Answered | Lost
            if self._fields[0] in _TOLD_IN_TEXTS:
                told = _texts(instance.id, outcome, meta, cpu_us, body)
            else:
                told = Answered(instance.id, Answer.from_frame(outcome, meta, body), cpu_us)
        except WireError as error:
            self._tell(Lost(instance.id, str(error), self._progress))
            raise
        if outcome == "cancelled" and (self._is_silent or self._progress):
            told = Lost(instance.id, _SILENT if self._is_silent else outcome, self._progress)
        self._tell(told)

    def heartbeat(self, progress: bytes) -> None:
        """The step is alive: it has time until the next sign of life."""
        if len(progress) > MAX_PROGRESS_BYTES:
            raise WireError(f"a progress of {len(progress)} bytes is above {MAX_PROGRESS_BYTES}")
        self._progress = progress or self._progress
        if self.cancelled is None:
            self._count_from(self._context.deadlines.clock())

    def cancel(self, reason: str) -> None:
        """End it; one that runs on regardless costs its instance the life."""
        patience_over = self._context.deadlines.clock() + self._context.limits.cancelled_seconds
        self.deadline = min(self.deadline, patience_over)
        super().cancel(reason)

    def _send(self, instance: Instance, spec: DeploymentSpec) -> AnswerSlot:
        now = self._context.deadlines.clock()  # not from the wait on
        self._must_end_at = now + self._seconds
        self._count_from(now)
        return instance.link.invoke(self, self._fields, self._subject)

    def _count_from(self, now: float) -> None:
        self.deadline = min(self._must_end_at, now + self._silence_seconds)

    def _timed_out(self) -> None:
        self._is_silent = self._context.deadlines.clock() < self._must_end_at

    def _sent_back(self) -> None:
        self.deadline = self._queue_deadline

    def _refused(self, reason: Unavailable) -> None:
        # later: a refusal may come while `invoke` has not returned yet
        asyncio.get_running_loop().call_soon(self._tell, reason)

    def _lost(self, instance: Instance, reason: str) -> None:
        self._tell(Lost(instance.id, _SILENT if self._is_silent else reason, self._progress))

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._done(outcome)
        except Exception:  # the link's other invocations must not suffer from it
            logger.exception("an outcome was not taken")


def _silence_seconds(heartbeat_ms: int, limits: PoolLimits) -> float:
    """Return after what silence an instance is not believed to watch its step any more."""
    if not heartbeat_ms:
        return NEVER
    return heartbeat_ms / 1000 + report_seconds(heartbeat_ms) + limits.silence_seconds


def _texts(instance: str, outcome: str, meta: dict[str, Any], cpu_us: int, body: bytes) -> Answered:
    if outcome not in OUTCOMES:
        raise WireError(f"unknown outcome {outcome!r}")
    answer = Answer(
        outcome=cast("AnswerOutcome", outcome),  # checked against OUTCOMES above
        reason=str(meta.get("reason", ""))[:MAX_REASON_CHARACTERS],
    )
    return Answered(instance, answer, cpu_us, unpack_revealed(body))
