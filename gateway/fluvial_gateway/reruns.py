"""Reruns: a new run of the workflow of another one, with the same input or another."""

from __future__ import annotations

from dataclasses import dataclass

from fluvial.events import Event, EventType, decode_event
from fluvial.ids import new_run_id, repeated_run_id
from fluvial.sealing import Binding
from fluvial_gateway.catalogue import Catalogue
from fluvial_gateway.forks import kept_meta
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.resealer import Resealer
from fluvial_gateway.runs import Arguments, Runs, Started, sealed_for
from fluvial_gateway.start_options import StartOptions
from fluvial_queue.contract import RunRecord, StartRun


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunPlan:
    """What to run again, and where."""

    arguments: Arguments | None = None  # None: the same input
    deployment: str | None = None  # a deployment's id or "latest"; None: the run's own


class Reruns:
    """Starts runs anew."""

    def __init__(self, runs: Runs, catalogue: Catalogue, resealer: Resealer) -> None:
        self._runs = runs
        self._catalogue = catalogue
        self._resealer = resealer

    async def rerun(self, origin: RunRecord, plan: RerunPlan, *, key: str = "") -> Started:
        """Start a run as `origin` was started; with `key`, at most once.

        It has the tags, priority, retention and time to its deadline of `origin`, and neither its
        key nor its singleton.

        Raises:
            ProblemError: no instance could seal the input anew.
            WorkflowNotFoundError: the deployment has no such workflow.
            KeysFrozenError: nothing is sealed for the app now.
            StartConflictError: the key was used for another plan.
        """
        run_id, fingerprint = new_run_id(self._runs.partitions), b""
        arguments = plan.arguments
        if key:
            run_id = repeated_run_id(origin.run_id, f"rerun {key}", self._runs.partitions)
            said = [plan.deployment, *([arguments.args, arguments.kwargs] if arguments else [])]
            fingerprint = self._runs.fingerprint(origin.app, origin.workflow, said)
            known = await self._runs.started_before(run_id, fingerprint, key)
            if known is not None:
                return known
        await self._runs.check_may_seal(origin.app)
        deployment = await self._runs.deployment_for(origin, plan.deployment)
        if arguments is None:
            sealed = await self._same_input(origin, run_id, deployment)
        else:
            app = await self._catalogue.app(origin.app)
            binding = Binding(origin.app, run_id, "input")
            sealed = sealed_for(app, arguments.plaintext(), binding)
        run = StartRun(
            run_id=run_id,
            app=origin.app,
            workflow=origin.workflow,
            deployment=deployment,
            input=sealed,
            fingerprint=fingerprint,
            meta={"rerun_of": origin.run_id, **kept_meta(origin)},
        )
        return await self._runs.start_sealed(run, _options(origin))

    async def _same_input(self, origin: RunRecord, run_id: str, deployment: str) -> bytes:
        async with self._resealer.admitted():
            log = await self._runs.events(origin.run_id, start=0, limit=1)
            # Of a run that was not taken up yet the input waits on the record.
            waiting = Event(EventType.RUN_STARTED, origin.created_ms, 0, origin.input)
            first = decode_event(log[0]) if log else waiting
            if first.type is not EventType.RUN_STARTED or not first.payload:
                raise ProblemError(
                    "run_not_begun",
                    f"{origin.run_id} has ended before it began, and its input is not kept: give "
                    "the arguments",
                )
            sealed = await self._resealer.reseal(origin, run_id, deployment, [first.encode()])
        return decode_event(sealed[0]).payload


def _options(origin: RunRecord) -> StartOptions:
    deadline_at = origin.meta.get("deadline_at")
    return StartOptions(
        deadline_ms=None if deadline_at is None else max(1, deadline_at - origin.created_ms),
        retention_ms=origin.retention_ms,
        tags=origin.tags,
    )
