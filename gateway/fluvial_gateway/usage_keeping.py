"""Usage in the store: written by the hour, summed over gateways and restarts, merged into days.

    usage record "h<hour>.<gateway>.<start>"   what a gateway has used in an hour since its start
    usage record "d<day>"                      a day that is over: the sum of its hours

A gateway writes the whole of its hour again and again, every `FLUSH_SECONDS` while something is
used and once at its stop: one write, safe to repeat, and nobody else writes that record. So totals
of several gateways, and of one that was restarted, add up; a crash loses what was not written yet.
While nothing is used nothing is written.

Hours become days once they are two days old. A day's record is written first, if there is none,
and then its hours are deleted; from then on readers do not look at hours of that day. So a crash
between the two, or two gateways that do it at once, count nothing twice.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from fluvial.errors import FluvialError
from fluvial_gateway.occupancy import Occupied
from fluvial_gateway.usage_amounts import DAY_HOURS, Used, total
from fluvial_gateway.usage_ledger import UsageLedger
from fluvial_queue.contract import Record, RecordKind

_LOG = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 60.0
HOURS_KEPT: Final = 2 * DAY_HOURS  # then they are merged into days
DAYS_KEPT: Final = 400
_KIND: Final = "usage"
_HOUR: Final = re.compile(r"h([0-9]{1,9})\..*")
_DAY: Final = re.compile(r"d([0-9]{1,9})")


class UsageRecords(Protocol):
    """The part of a store that holds usage."""

    async def put_record(
        self, kind: RecordKind, record_id: str, value: dict[str, Any], *, expect: int | None = None
    ) -> int | None: ...

    async def list_records(self, kind: RecordKind) -> list[Record]: ...

    async def delete_record(self, kind: RecordKind, record_id: str) -> bool: ...


class Occupier(Protocol):
    """Knows what invocations occupy on the instances."""

    def occupied(self) -> dict[str, Occupied]: ...


class UsageKeeping:
    """Writes one gateway's ledger, and reads what all gateways have written."""

    def __init__(
        self,
        ledger: UsageLedger,
        occupier: Occupier,
        records: UsageRecords,
        *,
        writer: str,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        """`writer` names this gateway and its start, as no other does."""
        self._ledger = ledger
        self._occupier = occupier
        self._records = records
        self._writer = writer
        self._flush_seconds = flush_seconds
        self._used = asyncio.Event()
        self._writing = asyncio.Lock()  # an older total must not come behind a newer one
        self._merged_day = -1
        ledger.on_used = self.wake

    def wake(self) -> None:
        """Something is used, or about to be: it is written in a while."""
        self._used.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Write what is used, until `stop` is set; `flush` once more when all is over."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set():
                used = asyncio.ensure_future(self._used.wait())
                await asyncio.wait((used, stopping), return_when=asyncio.FIRST_COMPLETED)
                used.cancel()
                await asyncio.wait((stopping,), timeout=self._flush_seconds)
                if not stop.is_set():
                    await self.flush()
        finally:
            stopping.cancel()

    async def flush(self) -> None:
        """Write what was used; what cannot be written now is written with the next."""
        async with self._writing:
            await self._flush()

    async def _flush(self) -> None:
        self._used.clear()
        if self._ledger.occupy(self._occupier.occupied()):
            self.wake()  # there will be more, also when no invocation ends
        for hour, used in self._ledger.take_changed().items():
            try:
                await self._records.put_record(_KIND, f"h{hour}.{self._writer}", used.to_dict())
            except FluvialError as error:
                self._ledger.keep(hour)
                self.wake()
                _LOG.warning("usage was not written", extra={"error": str(error)})
        self._ledger.forget_before(self._ledger.hour)
        await self._merge_once_a_day()

    async def read(self) -> dict[int, Used]:
        """Return what all gateways have used, by the hour; a merged day is its first hour's."""
        await self.flush()
        days, hours = _sorted(await self._records.list_records(_KIND))
        found = {day * DAY_HOURS: Used.from_dict(record.value) for day, record in days.items()}
        for hour, records in hours.items():
            if hour // DAY_HOURS not in days:
                found[hour] = total(Used.from_dict(record.value) for record in records)
        return found

    async def _merge_once_a_day(self) -> None:
        today = self._ledger.hour // DAY_HOURS
        if today == self._merged_day:
            return
        try:
            await self._merge()
        except FluvialError as error:
            _LOG.warning("usage was not merged", extra={"error": str(error)})
        else:
            self._merged_day = today

    async def _merge(self) -> None:
        days, hours = _sorted(await self._records.list_records(_KIND))
        oldest = (self._ledger.hour - HOURS_KEPT) // DAY_HOURS
        by_day: dict[int, list[Record]] = {}
        for hour, records in hours.items():
            if hour // DAY_HOURS < oldest:
                by_day.setdefault(hour // DAY_HOURS, []).extend(records)
        for day, records in by_day.items():
            if day not in days:
                summed = total(Used.from_dict(record.value) for record in records)
                await self._records.put_record(_KIND, f"d{day}", summed.to_dict(), expect=0)
            for record in records:
                await self._records.delete_record(_KIND, record.id)
        for day, record in days.items():
            if day < oldest - DAYS_KEPT:
                await self._records.delete_record(_KIND, record.id)


def _sorted(records: Iterable[Record]) -> tuple[Mapping[int, Record], Mapping[int, list[Record]]]:
    """Return the records of days, and those of hours, by their number."""
    days: dict[int, Record] = {}
    hours: dict[int, list[Record]] = {}
    for record in records:
        if match := _DAY.fullmatch(record.id):
            days[int(match[1])] = record
        elif match := _HOUR.fullmatch(record.id):
            hours.setdefault(int(match[1]), []).append(record)
    return days, hours
