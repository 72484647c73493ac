"""Forks: a new run that goes on from a place in another one's log, on its or another deployment.

The log up to the cut is sealed anew by an instance (only that can open it), then one start creates
the fork with it. What the fork has open is asked for again by its owner. The origin is left alone:
a terminal state is final.

Hooks that are open at the cut stay open in the fork, under the tokens that were handed out. Only
one run can have a token, so an origin that lives and has such a hook cannot be forked there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fluvial.events import Event, EventType, decode_event
from fluvial.hook_tokens import token_in_fork
from fluvial.ids import new_run_id, repeated_run_id
from fluvial.resealing import is_taken
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.resealer import Resealer
from fluvial_gateway.runs import MAX_EVENTS, Runs, Started
from fluvial_queue.contract import RunRecord, StartRun, Store
from fluvial_queue.cuts import (
    Cut,
    cut_at_start,
    cut_before_failure,
    cut_before_step,
    find_step,
    open_children,
)
from fluvial_queue.messages import MessageKind
from fluvial_queue.views import pack_turn

MAX_LOG_EVENTS: Final = 20_000  # what one start may bring along
MAX_LOG_BYTES: Final = 24 * 1024 * 1024
FROM_START: Final = 0
_TURN_ID: Final = bytes(8)  # of no coroutine: the first turn replays
_HELD: Final = "hook_conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkPlan:
    """Where to fork, and where the fork is to go on.

    `step`: a step's id or name; None: the step that failed last; `FROM_START`: everything happens
    again. `deployment`: an id, or "latest"; None: the run's own.
    """

    step: int | str | None = None
    deployment: str | None = None


class Forks:
    """Makes forks."""

    def __init__(self, runs: Runs, store: Store, resealer: Resealer) -> None:
        self._runs = runs
        self._store = store
        self._resealer = resealer

    async def fork(self, origin: RunRecord, plan: ForkPlan, *, by: str, key: str = "") -> Started:
        """Start a run that goes on where `plan` says; with `key`, at most once.

        Raises:
            StepNotFoundError, StepAmbiguousError, NoFailedStepError: the log cannot be cut there.
            ProblemError: it has not begun, waits for children or holds tokens there, is too large,
                or no instance could seal it.
            WorkflowNotFoundError: the deployment has no such workflow.
            KeysFrozenError: nothing is sealed for the app now.
            StartConflictError: the key was used for another plan.
        """
        run_id, fingerprint = new_run_id(self._runs.partitions), b""
        if key:
            run_id = repeated_run_id(origin.run_id, f"fork {key}", self._runs.partitions)
            said = [plan.step, plan.deployment]
            fingerprint = self._runs.fingerprint(origin.app, origin.workflow, said)
            known = await self._runs.started_before(run_id, fingerprint, key)
            if known is not None:
                return known
        await self._runs.check_may_seal(origin.app)
        deployment = await self._runs.deployment_for(origin, plan.deployment)
        async with self._resealer.admitted():
            log = await self._log(origin)
            cut = _cut(log, plan.step)
            kept = cut.kept(log)
            _check_children(kept)
            tokens = _open_tokens(kept, run_id)
            if not (origin.status.is_terminal or all(tokens.values())):
                raise _held(origin.run_id)
            await self._claim(origin.app, tokens, run_id)
            encoded = [event.encode() for event in kept]
            sealed = await self._resealer.reseal(origin, run_id, deployment, encoded)
            started = await self._runs.start_sealed(
                StartRun(
                    run_id=run_id,
                    app=origin.app,
                    workflow=origin.workflow,
                    deployment=deployment,
                    input=b"",
                    fingerprint=fingerprint,
                    meta={"origin": origin.run_id, "by": by, **kept_meta(origin)},
                    tags=origin.tags,
                    retention_ms=origin.retention_ms,
                    log=tuple(sealed),
                    turn=pack_turn(cut.consumed, _TURN_ID),
                )
            )
        await self._keep(origin.app, tokens, run_id)
        return started

    async def _log(self, origin: RunRecord) -> list[Event]:
        """Return what of a run's log a fork takes over."""
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
        log = [event for event in map(decode_event, encoded) if is_taken(event)]
        if not log or log[0].type is not EventType.RUN_STARTED:
            raise ProblemError(
                "run_not_begun", f"{origin.run_id} did nothing yet: there is nothing to go on from"
            )
        return log

    async def _claim(self, app: str, tokens: Iterable[str], run_id: str) -> None:
        for token in tokens:
            holder = await self._store.claim_token(app, token, run_id)
            if holder != run_id:
                raise _held(holder)

    async def _keep(self, app: str, tokens: Iterable[str], run_id: str) -> None:
        """Claim tokens once more, now that the run exists: until then others could take them."""
        try:
            await self._claim(app, tokens, run_id)
        except ProblemError:
            await self._runs.send(run_id, MessageKind.TERMINATE, {"reason": _HELD}, urgent=True)
            raise


def kept_meta(origin: RunRecord) -> dict[str, Any]:
    """Return what a run that repeats another one takes over of its record."""
    return {"priority": origin.meta["priority"]} if origin.meta.get("priority") else {}


def _cut(log: Sequence[Event], step: int | str | None) -> Cut:
    if step is None:
        return cut_before_failure(log)
    return cut_at_start(log) if step == FROM_START else cut_before_step(log, find_step(log, step))


def _check_children(kept: Sequence[Event]) -> None:
    children = open_children(kept)
    if children:
        raise ProblemError(
            "open_children",
            f"the run waits there for child runs (operations {', '.join(map(str, children))}), "
            "which are its own: fork from a step before they were started, or after they ended",
        )


def _open_tokens(kept: Sequence[Event], fork: str) -> dict[str, bool]:
    """Return the tokens that the fork takes over, of the hooks that are open at the cut: chosen
    ones, which their run has claimed, and made ones, which name their run."""
    tokens: dict[str, bool] = {}
    for event in kept:
        if event.type is EventType.HOOK_OPENED:
            tokens[event.meta["token"]] = bool(event.meta.get("chosen"))
        elif event.type in (EventType.HOOK_CLOSED, EventType.HOOK_CONFLICT):
            tokens.pop(event.meta["token"], None)
    return {
        token: chosen for token, chosen in tokens.items() if token_in_fork(token, fork) == token
    }


def _held(holder: str) -> ProblemError:
    return ProblemError(
        _HELD,
        f"{holder} has the token of a hook that is open there: end it first, or fork from an "
        "earlier step",
        extra={"run_id": holder},
    )


def _too_large(what: str, limit: str) -> ProblemError:
    return ProblemError(
        "log_too_large",
        f"the log has {what}; a fork takes at most {limit}: start a new run instead",
    )
