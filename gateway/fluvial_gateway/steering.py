"""Steering: what becomes of runs because somebody outside of them wants it.

Whoever may want something (an operator, a bulk operation, an instance) says it as a `Wish`. All but
a deletion are messages to the run, so they happen soon after they were asked for, in the order in
which they were asked for, and stand in its event log with who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fluvial.errors import InvalidRequestError, RunClosedError, RunNotFoundError
from fluvial_gateway.problems import ProblemError, RunNotPausedError
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import DeleteOutcome, RunRecord, RunStatus
from fluvial_queue.messages import MessageKind
from fluvial_queue.proposals import MAX_TAGS
from fluvial_queue.views import merged_tags

Action = Literal["cancel", "terminate", "pause", "resume", "wake", "retry", "tag", "delete"]

MAX_REASON_CHARACTERS: Final = 500
# They make room, so they are taken where the store has none for new work.
_URGENT: Final = frozenset({MessageKind.CANCEL, MessageKind.TERMINATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to become of a run.

    cancel      its workflow gets a CancelledError, and may clean up
    terminate   it ends at once
    pause       nothing of it is started any more; what is under way ends
    resume      it goes on, on `deployment` if that is given: an id, or `latest`
    wake        its sleeps end now, or the one timer that is named; a delayed start happens
    retry       the attempts of steps that wait for their time are made now
    tag         its tags change: None takes one away
    delete      it is removed with its log; only one that has ended
    """

    action: Action
    by: str = ""  # who asks, for the event log
    reason: str = ""  # why, for the event log; of cancel, terminate and pause
    deployment: str | None = None
    timer: int = 0  # 0: all sleeps
    tags: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    key: str = ""  # the same wish with the same key is carried out once


@dataclass(frozen=True, slots=True)
class Granted:
    """The answer to a wish."""

    run_id: str  # the run that is to do it: the last one, where runs continue each other
    deployment: str  # where it is, or goes on


class Steering:
    """Carries wishes out."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def carry_out(self, record: RunRecord, wish: Wish) -> Granted:
        """Have a run do what is wished; whatever is said here is known before that.

        Raises:
            RunNotFoundError, RunClosedError
            RunNotPausedError: only a paused run can be moved to another deployment.
            ProblemError, WorkflowNotFoundError: it cannot go on there.
            KeysFrozenError: it cannot go on, because nothing that it does can be sealed.
            InvalidRequestError: it would have too many tags.
        """
        if wish.action == "delete":
            await self._delete(record)
            return Granted(record.run_id, record.deployment)
        kind = MessageKind(wish.action)
        meta = await self._meta(record, wish)
        run_id = await self._runs.send(
            record.run_id,
            kind,
            {**meta, **({"by": wish.by} if wish.by else {})},
            correlation=wish.timer,
            key=f"{wish.action} {wish.key}" if wish.key else "",
            urgent=kind in _URGENT,
        )
        return Granted(run_id, str(meta.get("deployment", record.deployment)))

    async def check(self, record: RunRecord, wish: Wish) -> None:
        """Raise what `carry_out` would, as far as that can be known without doing it."""
        if wish.action != "delete":
            await self._meta(record, wish)

    async def _meta(self, record: RunRecord, wish: Wish) -> dict[str, Any]:
        match wish.action:
            case "cancel" | "terminate" | "pause":
                return {"reason": wish.reason} if wish.reason else {}
            case "resume":
                return await self._going_on(record, wish.deployment)
            case "tag":
                if len(merged_tags(record.tags, wish.tags)) > MAX_TAGS:
                    raise InvalidRequestError(f"a run has at most {MAX_TAGS} tags")
                return {"tags": dict(wish.tags)}
            case "wake" | "retry" | "delete":
                return {}

    async def _going_on(self, record: RunRecord, named: str | None) -> dict[str, Any]:
        """Return what a resume says: where the run goes on, if a deployment is named."""
        await self._runs.check_may_seal(record.app)
        if named is None:
            return {}
        if record.status.is_terminal:
            raise RunClosedError(record.run_id)
        if record.status is not RunStatus.PAUSED:
            raise RunNotPausedError(record.run_id, record.status.value)
        return {"deployment": await self._runs.deployment_for(record, named)}

    async def _delete(self, record: RunRecord) -> None:
        match await self._runs.delete(record.run_id):
            case DeleteOutcome.DELETED:
                return
            case DeleteOutcome.UNKNOWN:
                raise RunNotFoundError(record.run_id)
            case DeleteOutcome.OPEN:
                current = await self._runs.get(record.run_id)
                has_ended = current.status.is_terminal
                raise ProblemError(
                    "run_open",
                    f"{record.run_id} has ended, but what it asked of other runs is not done yet: "
                    "try again soon"
                    if has_ended
                    else f"{record.run_id} is {current.status.value}: only a run that has ended can"
                    " be deleted; cancel or terminate it first",
                )
