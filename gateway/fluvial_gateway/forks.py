"""Forks: a new run that goes on from a place in another one's log, on its or another deployment.

The log up to the cut is sealed anew by an instance (only that can open it), then one start creates
the fork with it. What the fork has open is asked for again by its owner. The origin is left alone:
a terminal state is final.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial.events import Event, EventType, decode_event
from fluvial.ids import new_run_id
from fluvial.resealing import ResealRequest, is_taken
from fluvial_gateway.invocations import Answered, Invocations, outcome_of
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import MAX_EVENTS, Runs, Started
from fluvial_queue.contract import RunRecord, StartRun, Store
from fluvial_queue.cuts import (
    Cut,
    cut_at_start,
    cut_before_failure,
    cut_before_step,
    open_children,
)
from fluvial_queue.views import pack_turn

logger = logging.getLogger(__name__)

MAX_LOG_EVENTS: Final = 20_000  # what one start may bring along
MAX_LOG_BYTES: Final = 24 * 1024 * 1024
_BATCH_EVENTS: Final = 2_000  # sealed anew in one invocation
_BATCH_BYTES: Final = 8 * 1024 * 1024
_RESEAL_SECONDS: Final = 60.0
_TURN_ID: Final = bytes(8)  # of no coroutine: the first turn replays


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkPlan:
    """Where to fork: from a step, from the step that failed last (None), or from the start (0)."""

    step: int | None = None
    deployment: str | None = None  # a deployment's id or "latest"; None: the run's own


class Forks:
    """Makes forks."""

    def __init__(self, runs: Runs, store: Store, invocations: Invocations) -> None:
        self._runs = runs
        self._store = store
        self._invocations = invocations

    async def fork(self, origin: RunRecord, plan: ForkPlan, *, by: str) -> Started:
        """Start a run that goes on where `plan` says.

        Raises:
            InvalidRequestError: the log cannot be cut there.
            ProblemError: too much to take over, or no instance could seal it.
            WorkflowNotFoundError: the deployment has no such workflow.
            KeysFrozenError: nothing is sealed for the app now.
        """
        await self._runs.check_may_seal(origin.app)
        deployment = await self._runs.deployment_for(origin, plan.deployment)
        log = [event for event in await self._log(origin) if is_taken(event)]
        if not log:
            raise InvalidRequestError(f"{origin.run_id} has not begun: there is nothing to fork")
        cut = _cut(log, plan.step)
        kept = log[: cut.events]
        tokens = _checked(kept)
        run_id = new_run_id(self._store.partitions)
        await self._claim(origin, tokens, run_id)
        sealed = await self._resealed(origin, run_id, deployment, kept)
        started = await self._runs.start_sealed(
            StartRun(
                run_id=run_id,
                app=origin.app,
                workflow=origin.workflow,
                deployment=deployment,
                input=b"",
                meta={"origin": origin.run_id, "by": by},
                tags=origin.tags,
                retention_ms=origin.retention_ms,
                log=tuple(sealed),
                turn=pack_turn(cut.consumed, _TURN_ID),
            )
        )
        logger.info(
            "forked", extra={"origin": origin.run_id, "run_id": run_id, "events": cut.events}
        )
        return started

    async def _log(self, origin: RunRecord) -> list[Event]:
        if origin.events > MAX_LOG_EVENTS:
            raise _too_large(f"{origin.events} events", f"{MAX_LOG_EVENTS} events")
        encoded: list[bytes] = []
        while len(encoded) < origin.events:
            batch = await self._runs.events(origin.run_id, start=len(encoded), limit=MAX_EVENTS)
            if not batch:
                break
            encoded += batch
        size = sum(map(len, encoded))
        if size > MAX_LOG_BYTES:
            raise _too_large(f"{size} bytes", f"{MAX_LOG_BYTES} bytes")
        return [decode_event(event) for event in encoded]

    async def _claim(self, origin: RunRecord, tokens: Sequence[str], run_id: str) -> None:
        """Claim the chosen tokens of the hooks that are open at the cut."""
        for token in tokens:
            holder = await self._store.claim_token(origin.app, token, run_id)
            if holder != run_id:
                raise ProblemError(
                    "hook_conflict",
                    f"{holder} holds the token of a hook that is open there: end it first, or fork "
                    "from an earlier step",
                )

    async def _resealed(
        self, origin: RunRecord, run_id: str, deployment: str, events: Sequence[Event]
    ) -> list[bytes]:
        sealed: list[bytes] = []
        for batch in _batches([event.encode() for event in events]):
            request = ResealRequest(
                run_id=origin.run_id,
                target=run_id,
                app=origin.app,
                workflow=origin.workflow,
                events=batch,
            )
            outcome = await outcome_of(
                self._invocations,
                deployment,
                request.to_frame_fields(),
                deadline_seconds=_RESEAL_SECONDS,
            )
            if not isinstance(outcome, Answered) or outcome.answer.outcome != "ok":
                raise ProblemError("not_revealed", f"the log cannot be taken over: {outcome}")
            answered = outcome.answer.events
            if len(answered) != len(batch):
                raise ProblemError("not_revealed", "the instance answered with another log")
            sealed += answered
        return sealed


def _cut(log: Sequence[Event], step: int | None) -> Cut:
    if step is None:
        return cut_before_failure(log)
    return cut_before_step(log, step) if step else cut_at_start(log)


def _checked(kept: Sequence[Event]) -> list[str]:
    """Return the chosen tokens that are open at the cut; refuse what cannot be taken over."""
    children = open_children(kept)
    if children:
        raise InvalidRequestError(
            f"the run waits there for child runs (operations {', '.join(map(str, children))}), "
            "which are its own: fork from a step before they were started, or after they ended"
        )
    tokens: dict[str, bool] = {}
    for event in kept:
        if event.type is EventType.HOOK_OPENED:
            tokens[event.meta["token"]] = bool(event.meta.get("chosen"))
        elif event.type in (EventType.HOOK_CLOSED, EventType.HOOK_CONFLICT):
            tokens.pop(event.meta["token"], None)
    return [token for token, chosen in tokens.items() if chosen]


def _batches(events: Sequence[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = [[]]
    size = 0
    for event in events:
        if batches[-1] and (len(batches[-1]) >= _BATCH_EVENTS or size + len(event) > _BATCH_BYTES):
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += len(event)
    return batches


def _too_large(what: str, limit: str) -> ProblemError:
    return ProblemError(
        "too_large", f"the log has {what}; a fork takes at most {limit}: start a new run instead"
    )
