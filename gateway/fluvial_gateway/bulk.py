"""Bulk: one wish for all runs that a query finds.

They are taken page by page, newest first, a few at a time. What becomes of each is told as soon as
it is known, and behind each page stands the cursor from which the rest can be done later. Closing
the generator stops it: what was asked of runs until then stays asked.

A run for which the wish makes no sense, or is refused, is skipped with a reason. What is not the
run's fault, such as a store that is away, ends it all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from fluvial.errors import FluvialError
from fluvial_gateway.problems import problem_of
from fluvial_gateway.runs import Runs
from fluvial_gateway.steering import Action, Steering, Wish
from fluvial_queue.contract import RunQuery, RunRecord, RunStatus

MAX_RUNS: Final = 100_000
_PAGE: Final = 200
_AT_ONCE: Final = 8
_ENDED: Final = frozenset(status for status in RunStatus if status.is_terminal)
_LIVE: Final = frozenset(RunStatus) - _ENDED
MEANT_FOR: Final[Mapping[Action, frozenset[RunStatus]]] = {
    "cancel": _LIVE,
    "terminate": _LIVE,
    "pause": _LIVE - {RunStatus.PAUSED},
    "resume": frozenset({RunStatus.PAUSED}),
    "wake": _LIVE,
    "retry": _LIVE - {RunStatus.PENDING},
    "tag": _LIVE,
    "delete": _ENDED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkWish:
    """What is to become of which runs."""

    wish: Wish
    query: RunQuery  # without statuses: of those for which the wish makes sense
    limit: int = MAX_RUNS
    dry_run: bool = False  # nothing is asked of any run


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What became of one run, or would."""

    run: RunRecord  # as it was before
    skipped: str = ""  # the code of the reason; empty: it was not
    detail: str = ""


@dataclass(slots=True)
class BulkTally:
    """How far it is."""

    matched: int = 0
    done: int = 0
    skipped: Counter[str] = field(default_factory=Counter[str])
    cursor: str | None = None  # where the rest begins; None: there is none

    def add(self, result: BulkResult) -> None:
        """Count a result."""
        self.matched += 1
        if result.skipped:
            self.skipped[result.skipped] += 1
        else:
            self.done += 1


class Bulk:
    """Carries wishes for many runs out."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._steering = Steering(runs)

    async def carry_out(
        self, asked: BulkWish, tally: BulkTally
    ) -> AsyncGenerator[BulkResult | BulkTally, None]:
        """Yield each run's result, and behind each page `tally`, which is kept up to date.

        Raises:
            FluvialError: it cannot go on.
        """
        statuses = asked.query.statuses or MEANT_FOR[asked.wish.action]
        query, left = replace(asked.query, statuses=statuses), asked.limit
        tally.cursor = query.cursor
        while True:
            page = await self._runs.page(replace(query, limit=min(_PAGE, left)))
            for start in range(0, len(page.runs), _AT_ONCE):
                for result in await self._some(page.runs[start : start + _AT_ONCE], asked):
                    tally.add(result)
                    yield result
            left -= len(page.runs)
            tally.cursor = page.cursor
            yield tally
            if page.cursor is None or left <= 0:
                return
            query = replace(query, cursor=page.cursor)

    async def _some(self, runs: Sequence[RunRecord], asked: BulkWish) -> list[BulkResult]:
        found = await asyncio.gather(*(self._one(run, asked) for run in runs))
        # Only when all are known: what was asked of a run must not go on by itself.
        stopped = next((each for each in found if isinstance(each, FluvialError)), None)
        if stopped is not None:
            raise stopped
        return [each for each in found if isinstance(each, BulkResult)]

    async def _one(self, run: RunRecord, asked: BulkWish) -> BulkResult | FluvialError:
        wish = asked.wish
        if run.status not in MEANT_FOR[wish.action]:
            return BulkResult(run, *_out_of_place(run, wish.action))
        try:
            if asked.dry_run:
                await self._steering.check(run, wish)
            else:
                await self._steering.carry_out(run, wish)
        except FluvialError as error:
            problem = problem_of(error)
            if problem.status >= 500:
                return error
            return BulkResult(run, str(problem.members["code"]), str(error))
        return BulkResult(run)


def _out_of_place(run: RunRecord, action: Action) -> tuple[str, str]:
    """Return the code and the text of why a wish makes no sense for a run."""
    status = run.status.value
    if action == "delete":
        return "run_open", f"it is {status}"
    if run.status.is_terminal:
        return "run_closed", f"it has ended: {status}"
    if action == "resume":
        return "run_not_paused", f"it is {status}"
    return "nothing_to_do", f"it is {status}"
