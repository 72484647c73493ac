"""Carrying effects out: what an owner does for an EFFECT message (`fluvial_queue.effects`).

Every effect is idempotent at its target: a start by the run's id, a message to a run by its resume
id. So an owner that does not know whether it has carried one out does it again.
"""

from __future__ import annotations

from typing import Final

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import SendOutcome, StartOutcome, StartRun, Store, StoreError
from fluvial_queue.effects import (
    LATEST,
    child_message,
    is_start,
    started_run,
    steering_message,
    target_of,
)
from fluvial_queue.messages import Message
from fluvial_queue.records import AppRecord


class TooEarlyError(StoreError):
    """The run that an effect is for does not exist yet: the effect that starts it comes first; or
    somebody is about to find out whether the deployment that it starts on can be deleted.

    An owner that has just taken a partition over may know of a later message (its own commit has
    added it) before it has read an earlier one."""

    code = "effect_too_early"
    retryable = True


_CONFLICT: Final = "another run has this id: its key was used before"


async def carry_out(store: Store, app: str, effect: Message, now_ms: int) -> str:
    """Do what an effect asks for; return "" or the problem for which it never can be done.

    Raises:
        OutcomeUnknownError, StoreUnavailableError: do it again.
        TooEarlyError: do it again once other effects of the run were tried.
    """
    if is_start(effect):
        return await _start(store, app, effect, now_ms)
    if effect.meta["do"] == "tell":
        child = str(effect.meta["child"])
        await store.send(
            target_of(effect), child_message(effect), resume_id=f"child {child}", urgent=True
        )
        return ""
    resume_id = f"{effect.meta['do']} {effect.run_id}"
    sent = await store.send(
        target_of(effect), steering_message(effect), resume_id=resume_id, urgent=True
    )
    if sent is SendOutcome.UNKNOWN:
        raise TooEarlyError(f"{target_of(effect)} does not exist yet")
    return ""


async def _start(store: Store, app: str, effect: Message, now_ms: int) -> str:
    deployment = str(effect.meta["deployment"])
    if deployment == LATEST:
        found = await store.get_record("app", app)
        production = AppRecord.from_dict(found.value).production if found is not None else None
        if production is None:
            return f"the app {app} has no production deployment"
        deployment = production
    run = started_run(effect, app, deployment, now_ms)
    try:
        outcome = await store.start(run)
    except InvalidRequestError as error:
        return str(error)
    if outcome is StartOutcome.RETIRED:
        # Production has moved meanwhile, or whoever deletes this one may still have to let it be.
        if (
            effect.meta["deployment"] == LATEST
            or await store.get_record("deployment", deployment) is not None
        ):
            raise TooEarlyError(f"{deployment} lets nothing in at the moment")
        return f"the deployment {deployment} was deleted"
    if outcome is StartOutcome.ACCEPTED or await _is_same(store, run):
        return ""
    return _CONFLICT


async def _is_same(store: Store, run: StartRun) -> bool:
    """Whether the run that exists is the one that this effect has started before."""
    existing = await store.read_run(run.run_id)
    if existing is None:
        return True  # it has ended, and its retention too
    made_by = ("parent", "operation", "first", "hops")
    return all(existing.meta.get(name) == run.meta.get(name) for name in made_by)
