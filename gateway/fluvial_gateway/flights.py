"""Jobs on their way: from the sequencer's wish to the router's outcome.

A job that could not be started at all (`Unavailable`) spends nothing: it is offered again with
back-off, and a deployment that refuses for good (its code cannot be imported) pauses the run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fluvial_gateway.activity import Activity, State
from fluvial_gateway.admission import Admission
from fluvial_gateway.invocations import (
    Answered,
    InvocationHandle,
    Lost,
    Outcome,
    Subject,
    Unavailable,
)
from fluvial_gateway.surroundings import Surroundings
from fluvial_queue.jobs import Job
from fluvial_queue.requests import step_request, turn_request
from fluvial_queue.sequencer import Sequencer

TURN_SECONDS = 120.0  # a turn is CPU work of milliseconds: beyond this it hangs
STEP_SECONDS = 24 * 3600.0  # a step without a timeout of its own
STEP_MARGIN_SECONDS = 30.0  # for the queue and the answer, beyond the step's own timeout
BACK_OFF_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
MAX_REFUSALS = 5  # final refusals (the code cannot be imported) before a run pauses

logger = logging.getLogger(__name__)


class FlightOwner(Protocol):
    """The owner of the jobs' partition."""

    def may_start(self, job: Job) -> bool:
        """Whether jobs may be dispatched now; one that may not is kept for later by the owner."""
        ...

    async def read_log(self, run_id: str, length: int) -> list[bytes] | None:
        """Return a run's log for a replay; None: the partition has another owner now."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """A job that is with the router."""

    job: Job
    function: str  # the workflow's name, or the step's
    invocation: str
    began: float
    handle: InvocationHandle | None = None


@dataclass(frozen=True, slots=True)
class _Refusals:
    """What became so far of a job that could not be started."""

    count: int = 0
    reason: str = ""


class Flights:
    """The invocations of one partition."""

    def __init__(
        self,
        sequencer: Sequencer,
        owner: FlightOwner,
        around: Surroundings,
        admission: Admission,
    ) -> None:
        self._sequencer = sequencer
        self._owner = owner
        self._around = around
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._flights: dict[Job, _Flight] = {}
        self._refusals: dict[Job, _Refusals] = {}
        self._replays: set[Job] = set()  # whose logs are being read

    @property
    def count(self) -> int:
        """How many invocations are under way."""
        return len(self._flights) + len(self._replays)

    def submit(self, job: Job) -> None:
        """Invoke a job as soon as its deployment's share allows."""
        self._admission.submit(job, self._start)

    def cancel(self, job: Job, reason: str) -> None:
        """Stop a job whose outcome is not wanted any more."""
        self._refusals.pop(job, None)
        flight = self._flights.get(job)
        if flight is not None and flight.handle is not None:
            flight.handle.cancel(reason)

    def activity(self, job: Job) -> Activity:
        """Say how a job stands that is not over."""
        flight, refusals = self._flights.get(job), self._refusals.get(job, _Refusals())
        instance = flight.handle.instance if flight is not None and flight.handle else None
        state: State
        if instance is not None:
            state = "executing"
        elif refusals.count:
            state = "refused"
        elif flight is not None:
            state = "instance"
        else:
            state = "reading" if job in self._replays else "place"
        step = job.view.steps.get(job.step_id) if job.kind == "step" else None
        return Activity(
            kind=job.kind,
            state=state,
            deployment=job.deployment,
            step_id=job.step_id,
            attempt=job.attempt,
            instance=instance or "",
            since_ms=0 if flight is None else self._began_ms(flight),
            problem=refusals.reason,
            refusals=refusals.count,
            is_isolated=step is not None and step.is_isolated,
        )

    def _began_ms(self, flight: _Flight) -> int:
        age_ms = round((time.perf_counter() - flight.began) * 1000)
        return self._around.clock.now_ms() - age_ms

    def _start(self, job: Job) -> bool:
        if not self._owner.may_start(job):
            return False
        if job.replay:
            self._replays.add(job)
            self._around.spawn(self._replay(job))
        elif job.kind == "turn":
            self._send(job, self._turn_fields(job, job.view.pending))
        else:
            self._send(job, self._step_fields(job))
        return True

    async def _replay(self, job: Job) -> None:
        try:
            events = await self._owner.read_log(job.view.run_id, job.base)
        finally:
            self._replays.discard(job)
        if events is None or job.over:
            self._around.progressed()
            self._admission.finished(job.deployment)
            return
        self._around.observer.replay("not_live", len(events))
        self._send(job, self._turn_fields(job, events))

    def _turn_fields(self, job: Job, events: Sequence[bytes]) -> tuple[str, dict[str, Any], bytes]:
        around = self._around
        return turn_request(
            job, events, around.clock.now_ms(), partitions=around.store.partitions
        ).to_frame_fields()

    def _step_fields(self, job: Job) -> tuple[str, dict[str, Any], bytes]:
        invocation = self._around.invocation_ids.new(time.monotonic())
        return step_request(job, invocation, self._around.clock.now_ms()).to_frame_fields()

    def _send(self, job: Job, fields: tuple[str, dict[str, Any], bytes]) -> None:
        view = job.view
        step = view.steps[job.step_id] if job.kind == "step" else None
        function = view.workflow if step is None else step.name
        flight = _Flight(job, function, fields[1].get("invocation", ""), time.perf_counter())
        self._flights[job] = flight
        flight.handle = self._around.invocations.invoke(
            job.deployment,
            fields,
            prefer=view.live_on,
            deadline_seconds=_deadline_seconds(job),
            done=lambda outcome: self._done(flight, outcome),
            subject=_subject(job),
            heartbeat_ms=step.heartbeat_ms if step is not None else 0,
            isolated=step is not None and step.is_isolated,
        )
        if job.kind == "step" and job.attempt == 1 and not view.steps[job.step_id].lost:
            self._around.observer.step_attempt(view.app, "first")

    def _done(self, flight: _Flight, outcome: Outcome) -> None:
        job = flight.job
        del self._flights[job]
        self._around.progressed()
        self._admission.finished(job.deployment)
        if isinstance(outcome, Unavailable):
            self._refused(job, outcome)
            return
        self._refusals.pop(job, None)
        seconds = time.perf_counter() - flight.began
        report = self._around.observer.invocation_finished
        if isinstance(outcome, Lost):
            report(job.view.app, job.kind, "lost", seconds, 0, function=flight.function)
            if outcome.crashed:
                self._sequencer.crashed(job, outcome.reason, outcome.progress)
            else:
                self._sequencer.lost(job, outcome.reason, outcome.progress)
            return
        told, cpu_us = outcome.answer.outcome, outcome.cpu_us
        report(job.view.app, job.kind, told, seconds, cpu_us, function=flight.function)
        self._sequencer.answered(job, outcome.answer, outcome.instance, _stamp(flight, outcome))

    def _refused(self, job: Job, outcome: Unavailable) -> None:
        """It was never started: offer it again after a while, or give the run up."""
        refusals = self._refusals.pop(job, _Refusals()).count + 1
        reason = f"{outcome.code}: {outcome.message}"
        if job.over:
            return
        if not outcome.retryable and refusals >= MAX_REFUSALS:
            self._sequencer.unavailable(job, reason, final=True)
            return
        logger.info("invocation refused", extra={"run": job.view.run_id, "reason": reason})
        self._refusals[job] = _Refusals(refusals, reason)
        delay = BACK_OFF_SECONDS[min(refusals, len(BACK_OFF_SECONDS)) - 1]
        self._loop.call_later(delay, self._offer_again, job)

    def _offer_again(self, job: Job) -> None:
        if job.over:
            self._refusals.pop(job, None)
        else:
            self.submit(job)


def _subject(job: Job) -> Subject | None:
    """Return what a step's calls are known by; workflow code makes none."""
    if job.kind == "turn":
        return None
    return Subject(
        run_id=job.view.run_id,
        step_id=job.step_id,
        attempt=job.attempt,
        message_id=job.message_id,
    )


def _stamp(flight: _Flight, outcome: Answered) -> dict[str, object]:
    """Return what the owner knows of an invocation, for the log."""
    return {
        "invocation": flight.invocation,
        "instance": outcome.instance,
        "cpu_us": outcome.cpu_us,
    }


def _deadline_seconds(job: Job) -> float:
    if job.kind == "turn":
        return TURN_SECONDS
    step = job.view.steps[job.step_id]
    limits_ms = [step.timeout_ms] if step.timeout_ms else []
    if step.expires_ms:
        limits_ms.append(max(0, step.expires_ms - job.started_ms))
    return min(limits_ms) / 1000 + STEP_MARGIN_SECONDS if limits_ms else STEP_SECONDS
