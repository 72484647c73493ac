"""What an instance is asked for a job: the one place that makes requests of views."""

from __future__ import annotations

from collections.abc import Sequence

from fluvial.invocations import StepRequest, TurnRequest
from fluvial_queue.jobs import Job


def turn_request(job: Job, events: Sequence[bytes], now_ms: int, *, partitions: int) -> TurnRequest:
    """Return the request of a turn: for a replay `events` is the log, else the new inputs.

    `partitions`: how many the store has."""
    view = job.view
    return TurnRequest(
        run_id=view.run_id,
        app=view.app,
        workflow=view.workflow,
        turn_id=None if job.replay or view.consumed == 0 else view.turn_id,
        consumed=view.consumed,
        now_ms=now_ms,
        events=events,
        partitions=partitions,
    )


def step_request(job: Job, invocation: str, now_ms: int) -> StepRequest:
    """Return the request of one attempt of a step; `job` is sent now."""
    job.started_ms = now_ms
    view = job.view
    step = view.steps[job.step_id]
    return StepRequest(
        run_id=view.run_id,
        app=view.app,
        workflow=view.workflow,
        step=step.name,
        id=job.step_id,
        attempt=job.attempt,
        invocation=invocation,
        timeout_ms=step.timeout_ms,
        now_ms=now_ms,
        carry=job.carry,
        input=step.input,
        history=step.history,
        expires_ms=step.expires_ms,
    )
