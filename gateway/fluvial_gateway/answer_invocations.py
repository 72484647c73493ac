"""Turns, steps, reveals and checks under way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

from fluvial.checks import CHECK
from fluvial.errors import WireError
from fluvial.invocations import (
    MAX_EVENTS,
    MAX_REASON_CHARACTERS,
    OUTCOMES,
    Answer,
    unpack_list,
)
from fluvial.invocations import Outcome as AnswerOutcome
from fluvial.manifest import DeploymentSpec
from fluvial_gateway.instances import Instance
from fluvial_gateway.invocations import Answered, Lost, Outcome, Subject, Unavailable
from fluvial_gateway.link_slots import AnswerSlot
from fluvial_gateway.pooled_invocations import InvocationContext, PooledInvocation
from fluvial_gateway.pools import InstancePool

logger = logging.getLogger(__name__)

_TOLD_IN_TEXTS: Final = frozenset({"reveal", CHECK})


class AnswerInvocation(PooledInvocation):
    """One INVOKE until its ANSWER; an `InvocationHandle` for the dispatcher."""

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
    ) -> None:
        self._seconds = seconds
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
            if self._fields[0] in _TOLD_IN_TEXTS:
                told = _texts(instance.id, outcome, meta, cpu_us, body)
            else:
                told = Answered(instance.id, Answer.from_frame(outcome, meta, body), cpu_us)
        except WireError as error:
            self._tell(Lost(instance.id, str(error)))
            raise
        self._tell(told)

    def cancel(self, reason: str) -> None:
        """End it; one that runs on regardless costs its instance the life."""
        patience_over = self._context.deadlines.clock() + self._context.limits.cancelled_seconds
        self.deadline = min(self.deadline, patience_over)
        super().cancel(reason)

    def _send(self, instance: Instance, spec: DeploymentSpec) -> AnswerSlot:
        self.deadline = self._context.deadlines.clock() + self._seconds  # not from the wait on
        return instance.link.invoke(self, self._fields, self._subject)

    def _sent_back(self) -> None:
        self.deadline = self._queue_deadline

    def _refused(self, reason: Unavailable) -> None:
        # later: a refusal may come while `invoke` has not returned yet
        asyncio.get_running_loop().call_soon(self._tell, reason)

    def _lost(self, instance: Instance, reason: str) -> None:
        self._tell(Lost(instance.id, reason))

    def _tell(self, outcome: Outcome) -> None:
        try:
            self._done(outcome)
        except Exception:  # the link's other invocations must not suffer from it
            logger.exception("an outcome was not taken")


def _texts(instance: str, outcome: str, meta: dict[str, Any], cpu_us: int, body: bytes) -> Answered:
    if outcome not in OUTCOMES:
        raise WireError(f"unknown outcome {outcome!r}")
    texts = unpack_list(body, at_most=MAX_EVENTS)
    if not all(text is None or isinstance(text, str) for text in texts):
        raise WireError("what should be texts is not")
    answer = Answer(
        outcome=cast("AnswerOutcome", outcome),  # checked against OUTCOMES above
        reason=str(meta.get("reason", ""))[:MAX_REASON_CHARACTERS],
    )
    return Answered(instance, answer, cpu_us, tuple(texts))
