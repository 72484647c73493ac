"""Deployments that are to be deleted, in Redis: the marks of each partition, and their sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from fluvial_queue.redis import lua
from fluvial_queue.redis.dialing import Command
from fluvial_queue.redis.keys import Keys
from fluvial_queue.redis.link import Link
from fluvial_queue.redis.lua import Scripts
from fluvial_queue.retirement_contract import (
    CLOSED_COUNT,
    CLOSED_MS,
    MAX_LISTED_RUNS,
    Counts,
    DeploymentUse,
)

_CLOSED: Final = b"x"  # of a mark, before the time
_SCANNED: Final = 500  # runs of one look
_FOR_EVER: Final = -1  # a PTTL: the run is live, or asks something of others
_START: Final = b"0"


class _Tally:
    """The runs of one deployment, as far as they were looked at."""

    def __init__(self) -> None:
        self._live: list[str] = []
        self._live_count = 0
        self._ended_count = 0

    def add(self, run_id: str, *, is_live: bool) -> None:
        if not is_live:
            self._ended_count += 1
            return
        self._live_count += 1
        if len(self._live) < MAX_LISTED_RUNS:
            self._live.append(run_id)

    def use(self) -> DeploymentUse:
        return DeploymentUse(tuple(sorted(self._live)), self._live_count, self._ended_count)


class Retirement:
    """Marks deployments, and looks which runs they have."""

    def __init__(self, link: Link, scripts: Scripts, keys: Keys, partitions: int) -> None:
        self._link = link
        self._scripts = scripts
        self._keys = keys
        self._marks = [keys.retired(partition) for partition in range(partitions)]
        self._indexes = [keys.index(partition) for partition in range(partitions)]

    async def retire(self, deployment: str) -> Counts:
        """Mark a deployment in every partition."""
        marking: list[Command] = [("HSETNX", marks, deployment, 0) for marks in self._marks]
        await self._link.calls(marking, writes=True)
        reading: list[Command] = [("HGET", marks, deployment) for marks in self._marks]
        found = await self._link.calls(reading, writes=False)
        return tuple(CLOSED_COUNT if mark[:1] == _CLOSED else int(mark) for mark in found)

    async def reinstate(self, deployment: str) -> None:
        """Remove the marks of a deployment."""
        removing: list[Command] = [("HDEL", marks, deployment) for marks in self._marks]
        await self._link.calls(removing, writes=True)

    async def close(self, deployment: str, counts: Counts) -> bool:
        """Close a deployment in every partition, if `counts` still hold."""
        closing = [
            self._scripts.run(lua.CLOSE, [marks], [deployment, count])
            for marks, count in zip(self._marks, counts, strict=True)
        ]
        return all(await asyncio.gather(*closing))

    async def uses(self, deployments: Collection[str]) -> dict[str, DeploymentUse]:
        """Look at every run; ZSCAN misses none that is there all the while, and may count one twice
        where the index grows meanwhile."""
        tallies = {deployment: _Tally() for deployment in deployments}
        for index in self._indexes:
            cursor = _START
            while True:
                command = ("ZSCAN", index, cursor, "COUNT", _SCANNED)
                cursor, found = await self._link.call(command, writes=False)
                await self._look([run_id.decode() for run_id in found[::2]], tallies)
                if cursor == _START:
                    break
        return {deployment: tally.use() for deployment, tally in tallies.items()}

    async def _look(self, run_ids: list[str], tallies: Mapping[str, _Tally]) -> None:
        commands: list[Command] = []
        for run_id in run_ids:
            run = self._keys.run(run_id)
            commands += (("HGET", run, "deployment"), ("PTTL", run))
        replies = await self._link.calls(commands, writes=False)
        for run_id, deployment, left_ms in zip(run_ids, replies[::2], replies[1::2], strict=True):
            tally = tallies.get("" if deployment is None else deployment.decode())
            if tally is not None:
                tally.add(run_id, is_live=left_ms == _FOR_EVER)

    async def sweep(self, partition: int) -> None:
        """Forget deployments that were closed long ago."""
        marks = self._marks[partition]
        reply = await self._link.call(("HGETALL", marks), writes=False)
        if not reply:
            return
        seconds, _ = await self._link.call(("TIME",), writes=False)
        now_ms = int(seconds) * 1000
        old = [
            deployment
            for deployment, mark in zip(reply[::2], reply[1::2], strict=True)
            if mark[:1] == _CLOSED and int(mark[1:]) + CLOSED_MS < now_ms
        ]
        if old:
            await self._link.call(("HDEL", marks, *old), writes=True)
