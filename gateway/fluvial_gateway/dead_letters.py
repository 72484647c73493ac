"""Dead letters: runs that the platform has paused, as waiting does not cure their trouble.

They keep all that they have done, and go on once somebody resumes them.

A run that somebody has paused on purpose is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from fluvial.events import Event, EventType, decode_event, unpack_event
from fluvial_gateway.runs import Runs
from fluvial_queue.contract import RunQuery, RunRecord, RunStatus

_PAGE: Final = 100  # events read at a time: behind a pause there are few
_AT_ONCE: Final = 16  # logs that are read at a time
_PAUSED: Final = int(EventType.RUN_PAUSED)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A run that is in trouble."""

    run: RunRecord
    code: str  # of the trouble; one of `PAUSE_CODES`
    since_ms: int


class DeadLetters:
    """Finds them."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def page(
        self, query: RunQuery, codes: frozenset[str] | None
    ) -> tuple[Sequence[DeadLetter], str | None]:
        """Return those among one page of paused runs, and the cursor of the next page.

        Args:
            query: which runs; their status need not be named.
            codes: in which trouble; None: in any.
        """
        paused = replace(query, statuses=frozenset({RunStatus.PAUSED}))
        page = await self._runs.page(paused)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def looked_at(run: RunRecord) -> DeadLetter | None:
            async with turns:
                return await self._of(run)

        found = await asyncio.gather(*map(looked_at, page.runs))
        letters = [letter for letter in found if letter and (codes is None or letter.code in codes)]
        return letters, page.cursor

    async def _of(self, run: RunRecord) -> DeadLetter | None:
        pause = await self._last_pause(run)
        if pause is None or not pause.meta.get("code"):
            return None
        return DeadLetter(run, str(pause.meta["code"]), pause.at_ms)

    async def _last_pause(self, run: RunRecord) -> Event | None:
        end = run.events
        while end > 0:
            start = max(0, end - _PAGE)
            events = await self._runs.events(run.run_id, start=start, limit=end - start)
            for encoded in reversed(events):
                if unpack_event(encoded)[0] == _PAUSED:
                    return decode_event(encoded)
            end = start
        return None
