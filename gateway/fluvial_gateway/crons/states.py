"""What is known of crons, in the store: read, and changed by compare-and-set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fluvial_gateway.catalogue import Records
from fluvial_gateway.problems import ProblemError
from fluvial_queue.cron_records import CronRecord, cron_id

_TRIES: Final = 5  # others who change the same record win at most so often in a row


@dataclass(frozen=True, slots=True)
class CronKey:
    """A cron's place among all: its app and its name."""

    app: str
    name: str


@dataclass(frozen=True, slots=True)
class Changed:
    """What one write has changed."""

    before: CronRecord
    after: CronRecord


@dataclass(frozen=True, slots=True)
class Known:
    """A record as it was read, with the version that a compare-and-set must name."""

    record: CronRecord
    version: int  # 0: there is none yet


class CronStates:
    """The records of all crons."""

    def __init__(self, records: Records) -> None:
        self._records = records

    async def read(self, key: CronKey) -> Known:
        """Return what is known of a cron; of a new one, nothing."""
        record = await self._records.get_record("cron", cron_id(key.app, key.name))
        if record is None:
            return Known(CronRecord(), 0)
        return Known(CronRecord.from_dict(record.value), record.version)

    async def read_all(self) -> dict[CronKey, CronRecord]:
        """Return what is known of every cron that anything is known of."""
        found: dict[CronKey, CronRecord] = {}
        for record in await self._records.list_records("cron"):
            app, _, name = record.id.partition("/")
            found[CronKey(app, name)] = CronRecord.from_dict(record.value)
        return found

    async def write(self, key: CronKey, record: CronRecord, *, expect: int) -> Known | None:
        """Write a record if its version is `expect`; None: it was another."""
        version = await self._records.put_record(
            "cron", cron_id(key.app, key.name), record.to_dict(), expect=expect
        )
        return None if version is None else Known(record, version)

    async def change(
        self,
        key: CronKey,
        change: Callable[[CronRecord], CronRecord],
        *,
        known: Known | None = None,
    ) -> Changed:
        """Apply a change to whatever stands in the record.

        Args:
            key: which cron's.
            change: returns the record as it shall be; may be called several times.
            known: what was read already; it may be out of date.

        Raises:
            ProblemError: others changed it too often meanwhile.
        """
        for _ in range(_TRIES):
            before = known or await self.read(key)
            known = None
            after = change(before.record)
            changed = Changed(before.record, after)
            if after == before.record:
                return changed
            if await self.write(key, after, expect=before.version) is not None:
                return changed
        raise ProblemError("unavailable", f"others changed the cron {key.name!r} meanwhile")
