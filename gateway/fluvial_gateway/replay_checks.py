"""Replay checks: whether runs would go on, were they moved to a deployment.

Each check is one invocation of that deployment, whatever the run's own is: it replays the log as
it is now and proposes nothing, so the run is not disturbed. Few are under way at a time, and one
log is held for each. What a check finds holds no data of the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, Literal

from fluvial.checks import CheckReport, CheckRequest
from fluvial.errors import WireError
from fluvial_gateway.invocations import (
    Answered,
    Invocations,
    Lost,
    Outcome,
    Unavailable,
    outcome_of,
)
from fluvial_gateway.problems import ProblemError
from fluvial_gateway.runs import MAX_EVENTS, Runs
from fluvial_queue.contract import RunQuery, RunRecord, RunStatus
from fluvial_queue.records import DeploymentRecord
from fluvial_queue.views import unpack_turn

MAX_RUNS: Final = 100_000  # in one report
MAX_LOG_BYTES: Final = 32 * 1024 * 1024  # half of what one frame may hold
_UNDER_WAY: Final = 4  # replays at a time, of all reports together: each is CPU and a log in memory
_REPORTS: Final = 4  # being made at a time
_PAGE: Final = 200  # runs listed at a time
_DEADLINE_SECONDS: Final = 120.0  # a cold start, and the replay of a long log

_LIVE: Final = frozenset(status for status in RunStatus if not status.is_terminal)
_ENDED: Final = frozenset(status for status in RunStatus if status.is_terminal)

_OF_ONE_RUN: Final = frozenset({"too_large", "cancelled"})  # refusals that say nothing of others

Finding = Literal["ok", "diverged", "unchecked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which runs of the deployment's app to check, and how."""

    last: int | None = None  # the last ones that have ended; None: all that have not
    workflow: str | None = None  # only of this one
    limit: int = MAX_RUNS
    compares_values: bool = False


@dataclass(frozen=True, slots=True)
class RunCheck:
    """What was found about one run."""

    run: RunRecord
    finding: Finding
    detail: str = ""  # the diff, or why it could not be checked
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The end of a report."""

    counts: Mapping[str, int]  # by finding
    warned: int  # runs with warnings
    is_complete: bool  # False: there are more runs than the limit


class ReplayChecks:
    """Makes reports."""

    def __init__(
        self, runs: Runs, invocations: Invocations, *, deadline_seconds: float = _DEADLINE_SECONDS
    ) -> None:
        self._runs = runs
        self._invocations = invocations
        self._deadline_seconds = deadline_seconds
        self._places = asyncio.Semaphore(_UNDER_WAY)
        self._reports = 0

    async def report(
        self, deployment: DeploymentRecord, wanted: Wanted
    ) -> AsyncGenerator[RunCheck | Summary, None]:
        """Yield each run's check as it is done, then the summary; closing it stops the checks.

        Raises:
            ProblemError: too many reports are being made, or the deployment cannot be started.
        """
        if self._reports >= _REPORTS:
            raise ProblemError("too_many_waits", f"{_REPORTS} replay checks are under way already")
        self._reports += 1
        tally = _Tally()
        try:
            async with aclosing(self._checks(deployment, wanted, tally)) as checks:
                async for check in checks:
                    tally.add(check)
                    yield check
            yield tally.summary()
        finally:
            self._reports -= 1

    async def _checks(
        self, deployment: DeploymentRecord, wanted: Wanted, tally: _Tally
    ) -> AsyncGenerator[RunCheck, None]:
        under_way: set[asyncio.Task[RunCheck]] = set()
        try:
            async with aclosing(self._listed(deployment.spec.app, wanted, tally)) as runs:
                async for run in runs:
                    under_way.add(asyncio.create_task(self._check(deployment, run, wanted)))
                    if len(under_way) >= _UNDER_WAY:
                        yield await _next(under_way)
            while under_way:
                yield await _next(under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _listed(
        self, app: str, wanted: Wanted, tally: _Tally
    ) -> AsyncGenerator[RunRecord, None]:
        is_live = wanted.last is None
        left = wanted.limit if wanted.last is None else min(wanted.limit, wanted.last)
        cursor: str | None = None
        while left > 0:
            page = await self._runs.page(
                RunQuery(
                    app=app,
                    workflow=wanted.workflow,
                    statuses=_LIVE if is_live else _ENDED,
                    limit=min(_PAGE, left),
                    cursor=cursor,
                )
            )
            for run in page.runs:
                yield run
            left -= len(page.runs)
            cursor = page.cursor
            if cursor is None:
                break
        tally.is_complete = cursor is None or not is_live

    async def _check(
        self, deployment: DeploymentRecord, run: RunRecord, wanted: Wanted
    ) -> RunCheck:
        if run.workflow not in deployment.functions.workflows:
            return RunCheck(run, "unchecked", f"the deployment has no workflow {run.workflow!r}")
        if run.events == 0:
            return RunCheck(run, "ok")  # it has not begun
        async with self._places:
            events = await self._log(run)
            if isinstance(events, str):
                return RunCheck(run, "unchecked", events)
            request = CheckRequest(
                run_id=run.run_id,
                app=run.app,
                workflow=run.workflow,
                consumed=unpack_turn(run.turn)[0] if run.turn else 0,
                compares_values=wanted.compares_values,
                events=events,
                partitions=self._runs.partitions,
            )
            outcome = await outcome_of(
                self._invocations,
                deployment.spec.deployment,
                request.to_frame_fields(),
                deadline_seconds=self._deadline_seconds,
            )
        return _found(run, outcome)

    async def _log(self, run: RunRecord) -> list[bytes] | str:
        """Return a run's log as it was when the run was listed, or why it cannot be had."""
        events: list[bytes] = []
        size = 0
        while len(events) < run.events:
            limit = min(MAX_EVENTS, run.events - len(events))
            batch = await self._runs.events(run.run_id, start=len(events), limit=limit)
            size += sum(map(len, batch))
            if size > MAX_LOG_BYTES:
                return f"its log has more than {MAX_LOG_BYTES} bytes"
            if not batch:
                return "its retention has ended"
            events += batch
        return events


class _Tally:
    """Counts a report's findings."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {"ok": 0, "diverged": 0, "unchecked": 0}
        self._warned = 0
        self.is_complete = False

    def add(self, check: RunCheck) -> None:
        self._counts[check.finding] += 1
        self._warned += bool(check.warnings)

    def summary(self) -> Summary:
        return Summary(counts=self._counts, warned=self._warned, is_complete=self.is_complete)


async def _next(under_way: set[asyncio.Task[RunCheck]]) -> RunCheck:
    """Wait for the first check that is done, and take it out."""
    done, _ = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    first = done.pop()
    under_way.discard(first)
    return first.result()


def _found(run: RunRecord, outcome: Outcome) -> RunCheck:
    match outcome:
        case Answered(answer=answer, texts=texts) if answer.outcome == "ok":
            try:
                report = CheckReport.from_texts(texts)
            except WireError as error:
                return RunCheck(run, "unchecked", str(error))
            finding: Finding = "unchecked" if report.verdict == "unreadable" else report.verdict
            return RunCheck(run, finding, report.detail, report.warnings)
        case Answered():
            return RunCheck(run, "unchecked", "the instance failed to check it: see its log")
        case Lost(reason=reason):
            return RunCheck(run, "unchecked", f"the instance that checked it ended: {reason}")
        case Unavailable(code=code, message=message, retryable=retryable):
            if retryable or code in _OF_ONE_RUN:
                return RunCheck(run, "unchecked", f"{code}: {message}")
            raise ProblemError(
                code if code == "import_failed" else "unavailable",
                f"no instance of the deployment can be started: {code}: {message}",
            )
