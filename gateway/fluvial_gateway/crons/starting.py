"""The runs of crons: started for a tick, looked at, ended to make room for the next one.

A tick's run has a key made of the cron's name and the tick's time, so its id is the same whoever
starts it and however often: a tick has at most one run, for as long as the store keeps it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from fluvial.crons import CronSpec
from fluvial.errors import RunClosedError, RunNotFoundError
from fluvial.ids import keyed_run_id, new_run_id
from fluvial.sealing import Binding
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import Arguments, Runs, Started, sealed_for
from fluvial_gateway.steering import Steering, Wish
from fluvial_queue.contract import RunRecord, RunStatus, StartRun
from fluvial_queue.records import AppRecord

_CONTINUATIONS: Final = 1000  # of one run by continue_as_new that are followed at once
_TO_COME_MS: Final = 60_000  # a run that is not there so long after its forerunner was deleted


class CronRuns:
    """Starts and watches the runs of crons."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._steering = Steering(runs)

    def id_of(self, app: str, spec: CronSpec, tick_ms: int) -> str:
        """Return the id of the run that a tick has or would have."""
        return keyed_run_id(app, spec.workflow, _key(spec, tick_ms), self._runs.partitions)

    async def start(self, app: AppRecord, spec: CronSpec, tick_ms: int) -> Started:
        """Start the run of a tick, or find that it was started.

        Raises:
            FluvialError: there is none; retryable, if the store did not answer.
        """
        run_id = self.id_of(app.app, spec, tick_ms)
        return await self._start(app, spec, tick_ms, run_id, _key(spec, tick_ms))

    async def trigger(self, app: AppRecord, spec: CronSpec, now_ms: int, key: str) -> Started:
        """Start a run outside the schedule; with `key`, at most one."""
        name = f"cron:{spec.name}:trigger:{key}" if key else ""
        partitions = self._runs.partitions
        run_id = (
            keyed_run_id(app.app, spec.workflow, name, partitions)
            if name
            else new_run_id(partitions)
        )
        return await self._start(app, spec, now_ms, run_id, name)

    async def exists(self, run_id: str) -> bool:
        return await self._find(run_id) is not None

    async def going_on(self, run_id: str, now_ms: int) -> str:
        """Return the run that still goes on of a run and those that continue it; "": none does."""
        continued_ms: int | None = None
        for _ in range(_CONTINUATIONS):
            record = await self._find(run_id) if run_id else None
            if record is None:
                # The next run is started a moment after the last one has ended.
                is_to_come = continued_ms is not None and now_ms - continued_ms < _TO_COME_MS
                return run_id if is_to_come else ""
            if record.status is not RunStatus.CONTINUED:
                return "" if record.status.is_terminal else run_id
            end = await self._runs.last_event(record)
            run_id = "" if end is None else str(end[0].meta.get("run", ""))
            continued_ms = record.finished_ms
        return run_id

    async def cancel(self, run_id: str, reason: str) -> None:
        """Ask a run to end, if it has not ended meanwhile; its clean-up has a deadline."""
        record = await self._find(run_id)
        if record is None:
            return
        try:
            await self._steering.carry_out(record, Wish(action="cancel", reason=reason))
        except (RunNotFoundError, RunClosedError):
            return  # it has ended by itself

    async def _find(self, run_id: str) -> RunRecord | None:
        try:
            return await self._runs.get(run_id)
        except RunNotFoundError:
            return None

    async def _start(
        self, app: AppRecord, spec: CronSpec, tick_ms: int, run_id: str, key: str
    ) -> Started:
        if app.production is None:
            raise ProblemError("nothing_deployed", f"app {app.app!r} has no production deployment")
        plaintext = _arguments(spec, tick_ms).plaintext()
        return await self._runs.start_sealed(
            StartRun(
                run_id=run_id,
                app=app.app,
                workflow=spec.workflow,
                deployment=app.production,
                input=sealed_for(app, plaintext, Binding(app.app, run_id, "input")),
                key=key,
                meta={"cron": spec.name, "tick": _utc(tick_ms)},
                tags={"cron": spec.name},
            )
        )


def _key(spec: CronSpec, tick_ms: int) -> str:
    return f"cron:{spec.name}:{_utc(tick_ms)}"


def _utc(moment_ms: int) -> str:
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return moment.isoformat(timespec="auto").replace("+00:00", "Z")


def _arguments(spec: CronSpec, tick_ms: int) -> Arguments:
    kwargs: dict[str, Any] = dict(spec.kwargs)
    if spec.tick is not None:
        at = datetime.fromtimestamp(tick_ms / 1000, ZoneInfo(spec.timezone))
        kwargs[spec.tick] = {"cron": spec.name, "at": at.isoformat()}
    return Arguments(list(spec.args), kwargs)
