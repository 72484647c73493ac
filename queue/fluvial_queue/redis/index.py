"""The index of runs: lists them newest first across partitions, and is swept of expired ones.

A cursor names the last run that was looked at, so pages are stable while runs are added. A page
looks at a bounded number of runs: it may be short, even empty, and still have a next one.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import Any, Final

import msgpack

from fluvial.errors import InvalidRequestError
from fluvial_queue.contract import RunPage, RunQuery, RunRecord, RunStatus
from fluvial_queue.cursors import Position, format_cursor, matches, parse_cursor
from fluvial_queue.redis import lua
from fluvial_queue.redis.dialing import Command
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Scripts

_MAX_EXAMINED: Final = 10_000  # runs that one page looks at
_BATCH: Final = 100
_SWEEP_BATCH: Final = 100


class RunIndex:
    """Reads run records, lists and sweeps the index."""

    def __init__(self, link: Link, scripts: Scripts, keys: Keys, partitions: int) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._partitions = partitions

    async def read(self, run_id: str) -> RunRecord | None:
        """Return a run's record."""
        keys = [self._keys.run(run_id), self._keys.log(run_id), self._keys.input(run_id)]
        fields = await self._scripts.run(lua.READ_RUN, keys, [])
        return None if fields is None else _record(run_id, fields)

    async def query(self, query: RunQuery) -> RunPage:
        """Return one page of the runs that match."""
        if query.limit < 1:
            raise InvalidRequestError(f"limit must be at least 1, got {query.limit}")
        before = None if query.cursor is None else parse_cursor(query.cursor)
        merged = _Merge(self._link, self._keys, range(self._partitions), query, before)
        runs: list[RunRecord] = []
        for _ in range(_MAX_EXAMINED // _BATCH):
            batch = await merged.take(_BATCH)
            matching = await self._matching(batch, query)
            wanted = matching[: query.limit - len(runs)]
            found = await asyncio.gather(*[self.read(run_id) for _, run_id in wanted])
            runs += [run for run in found if run is not None]
            if len(wanted) < len(matching):
                return RunPage(tuple(runs), format_cursor(wanted[-1]))
            if len(batch) < _BATCH:
                return RunPage(tuple(runs), None)
            before = batch[-1]
            if len(runs) == query.limit:
                break
        return RunPage(tuple(runs), None if before is None else format_cursor(before))

    async def _matching(self, batch: Sequence[Position], query: RunQuery) -> list[Position]:
        commands: list[Command] = [
            (
                "HMGET",
                self._keys.run(run_id),
                "app",
                "workflow",
                "status",
                "tags",
                "meta",
                "deployment",
            )
            for _, run_id in batch
        ]
        replies = await self._link.calls(commands, writes=False)
        return [
            position
            for position, reply in zip(batch, replies, strict=True)
            if _matches(query, position[1], reply)
        ]

    async def sweep(self, partition: int, offset: int) -> int:
        """Remove expired runs among the next few; return where to go on (0: from the start)."""
        index = self._keys.index(partition)
        command = ("ZRANGE", index, offset, offset + _SWEEP_BATCH - 1)
        run_ids = [run_id.decode() for run_id in await self._link.call(command, writes=False)]
        if not run_ids:
            return 0
        keys = [index, *map(self._keys.run, run_ids)]
        removed: int = await self._scripts.run(lua.UNINDEX, keys, list[lua.Argument](run_ids))
        return 0 if len(run_ids) < _SWEEP_BATCH else offset + len(run_ids) - removed


class _Merge:
    """Positions of all partitions in one order, newest first, read in pieces."""

    def __init__(
        self,
        link: Link,
        keys: Keys,
        partitions: range,
        query: RunQuery,
        before: Position | None,
    ) -> None:
        self._link = link
        self._least = "-inf" if query.since_ms is None else str(query.since_ms)
        self._most = _most(query.until_ms, before)
        indexes = [keys.index(partition) for partition in partitions]
        self._before = dict.fromkeys(indexes, before)  # the last position that each has given
        self._offsets = dict.fromkeys(indexes, 0)  # of those that may have more to read
        self._held = dict.fromkeys(indexes, 0)  # how many positions of each the heap holds
        self._heap: list[tuple[int, tuple[int, ...], str, str]] = []

    async def take(self, limit: int) -> list[Position]:
        """Return the next positions; fewer than `limit` only at the end."""
        taken: list[Position] = []
        while len(taken) < limit:
            while dry := [index for index in self._offsets if not self._held[index]]:
                await self._refill(dry)
            if not self._heap:
                break
            minus_created, _, run_id, index = heapq.heappop(self._heap)
            self._held[index] -= 1
            taken.append((-minus_created, run_id))
        return taken

    async def _refill(self, indexes: Sequence[str]) -> None:
        commands: list[Command] = [self._command(index) for index in indexes]
        replies = await self._link.calls(commands, writes=False)
        for index, reply in zip(indexes, replies, strict=True):
            for run_id, created_ms in zip(reply[::2], reply[1::2], strict=True):
                self._hold(index, (int(created_ms), run_id.decode()))
            if len(reply) < 2 * _BATCH:
                del self._offsets[index]
            else:
                self._offsets[index] += _BATCH

    def _command(self, index: str) -> Command:
        limits = self._most, self._least, "WITHSCORES", "LIMIT", self._offsets[index], _BATCH
        return "ZREVRANGEBYSCORE", index, *limits

    def _hold(self, index: str, position: Position) -> None:
        """Take a position in, but for those before the cursor, or seen before because runs that
        were added meanwhile have moved them down."""
        before = self._before[index]
        if before is None or position < before:
            self._before[index] = position
            self._held[index] += 1
            heapq.heappush(self._heap, (*_newest_first(position), index))


def _most(until_ms: int | None, before: Position | None) -> str:
    """The greatest score to read: that of the cursor, or what lies before `until_ms`."""
    if until_ms is not None and (before is None or until_ms <= before[0]):
        return f"({until_ms}"
    return "+inf" if before is None else str(before[0])


def _newest_first(position: Position) -> tuple[int, tuple[int, ...], str]:
    created_ms, run_id = position
    return -created_ms, tuple([-ord(character) for character in run_id]), run_id


def _matches(query: RunQuery, run_id: str, reply: Sequence[bytes | None]) -> bool:
    app, workflow, status = ["" if value is None else value.decode() for value in reply[:3]]
    if query.deployment is not None and reply[5] != query.deployment.encode():
        return False
    return matches(query, run_id, app, workflow, status, _map(reply[3]), _map(reply[4]))


def _record(run_id: str, fields: Sequence[Any]) -> RunRecord:
    app, workflow, deployment, status, created, finished, key, fingerprint, turn, meta = fields[:10]
    tags, reason, retention, state_at, length, sealed = fields[10:]
    return RunRecord(
        run_id=run_id,
        app=app.decode(),
        workflow=workflow.decode(),
        deployment=deployment.decode(),
        status=RunStatus(status.decode()),
        created_ms=int(created),
        finished_ms=None if finished is None else int(finished),
        key=key.decode(),
        fingerprint=fingerprint,
        input=sealed or b"",
        turn=turn or b"",
        events=length,
        meta=msgpack.unpackb(meta),
        tags=_map(tags),
        reason="" if reason is None else reason.decode(),
        retention_ms=None if retention is None else int(retention),
        state_at=None if state_at is None else int(state_at),
    )


def _map(packed: bytes | None) -> dict[str, Any]:
    return msgpack.unpackb(packed) if packed else {}
